//! Removing what was published or set aside, under the leases of its lanes: by spans where that is exact, else row by row.

use std::collections::{BTreeMap, BTreeSet};

use diesel::sql_types::{Array, BigInt, Integer, Json, SmallInt, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    super::{
        Bind, Connection, RepositoryError,
        leases::{self, Lease},
        statement, transaction,
    },
    row::{OutboxRowId, RejectedRow},
};

/// Removes exactly these rows, and keeps the rejected ones as dead letters, in one transaction that holds the leases of
/// their lanes. Doing it again after an unknown outcome is harmless, if no lane is said to be whole then.
///
/// Of the `whole` lanes there is nothing between the first and the last row but what is to be removed, and all of it is
/// there; that this is so is counted. It spares the server the comparison with a list, a quarter of the work.
pub async fn remove(
    connection: &mut Connection,
    leases: &[Lease],
    published: &[OutboxRowId],
    whole: &BTreeSet<i16>,
    rejected: &[RejectedRow],
) -> Result<(), RepositoryError> {
    let held: Vec<&Lease> = leases.iter().collect();
    let (of_whole, others): (Vec<_>, Vec<_>) = published.iter().partition(|row| whole.contains(&row.lane));
    transaction("relay", connection, async |connection: &mut Connection| {
        leases::hold(connection, &held).await?;
        for row in rejected {
            dead_letter(connection, row).await?;
        }
        delete_whole(connection, &of_whole).await?;
        delete_listed(connection, &others).await
    })
    .await
}

/// By lane: the first and the last id.
struct Spans {
    lanes: Vec<i16>,
    firsts: Vec<i64>,
    lasts: Vec<i64>,
}

impl Spans {
    fn of(rows: &[OutboxRowId]) -> Self {
        let mut spans: BTreeMap<i16, (i64, i64)> = BTreeMap::new();
        for OutboxRowId { lane, id, .. } in rows {
            let (first, last) = spans.entry(*lane).or_insert((*id, *id));
            (*first, *last) = ((*first).min(*id), (*last).max(*id));
        }
        let lanes = spans.keys().copied().collect();
        let (firsts, lasts) = spans.into_values().unzip();
        Self { lanes, firsts, lasts }
    }
}

async fn delete_whole(connection: &mut Connection, rows: &[OutboxRowId]) -> Result<(), RepositoryError> {
    if rows.is_empty() {
        return Ok(());
    }
    let Spans { lanes, firsts, lasts } = Spans::of(rows);
    let deleted = statement(
        "DELETE FROM outbox o USING unnest(?, ?, ?) AS span (lane, first, last)
         WHERE o.lane = span.lane AND o.id BETWEEN span.first AND span.last",
    )
    .bind::<Array<SmallInt>, _>(lanes)
    .bind::<Array<BigInt>, _>(firsts)
    .bind::<Array<BigInt>, _>(lasts)
    .execute(connection)
    .await?;
    if deleted != rows.len() {
        return Err(RepositoryError::OutboxDiffers { expected: rows.len(), found: deleted });
    }
    Ok(())
}

async fn delete_listed(connection: &mut Connection, rows: &[OutboxRowId]) -> Result<(), RepositoryError> {
    if rows.is_empty() {
        return Ok(());
    }
    let Spans { lanes: span_lanes, firsts, lasts } = Spans::of(rows);
    let lanes: Vec<i16> = rows.iter().map(|row| row.lane).collect();
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let event_ids: Vec<Uuid> = rows.iter().map(|row| row.event_id).collect();
    // One walk along the index per lane, instead of one search from its root per row. `IS TRUE` keeps the planner from
    // making a join of the list: as it stands it is a hashed subplan.
    statement(
        "DELETE FROM outbox o USING unnest(?, ?, ?) AS span (lane, first, last)
         WHERE o.lane = span.lane AND o.id BETWEEN span.first AND span.last
           AND ((o.lane, o.id, o.event_id) IN (SELECT * FROM unnest(?, ?, ?))) IS TRUE",
    )
    .bind::<Array<SmallInt>, _>(span_lanes)
    .bind::<Array<BigInt>, _>(firsts)
    .bind::<Array<BigInt>, _>(lasts)
    .bind::<Array<SmallInt>, _>(lanes)
    .bind::<Array<BigInt>, _>(ids)
    .bind::<Array<SqlUuid>, _>(event_ids)
    .execute(connection)
    .await?;
    Ok(())
}

/// Moves the row into the dead letters, if it is still there.
async fn dead_letter(connection: &mut Connection, rejected: &RejectedRow) -> Result<(), RepositoryError> {
    let row = &rejected.row;
    statement(
        "WITH taken AS (DELETE FROM outbox WHERE lane = ? AND id = ? AND event_id = ? RETURNING topic, key, value, event_id)
         INSERT INTO dead_letters (id, consumer_group, topic, partition, key, value, headers, stage, reason, error,
                                   attempts, event_id)
         SELECT ?, 'relay', topic, ?, key, value, ?, 'publish', ?, ?, 1, event_id FROM taken",
    )
    .bind::<SmallInt, _>(row.lane)
    .bind::<BigInt, _>(row.id)
    .bind::<SqlUuid, _>(row.event_id)
    .bind::<SqlUuid, _>(Uuid::now_v7())
    .bind::<Integer, _>(rejected.partition)
    .bind::<Json, _>(rejected.headers.to_json())
    .bind::<Text, _>(rejected.reason)
    .bind::<Text, _>(&rejected.error)
    .execute(connection)
    .await?;
    Ok(())
}
