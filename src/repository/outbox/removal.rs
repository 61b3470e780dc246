//! The removal of published and rejected rows, under the leases of their lanes: by ranges of ids where a range holds
//! nothing else, otherwise row by row.

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

/// Removes the published rows, and moves the rejected rows to the dead letters, in one database transaction that holds
/// `leases`.
///
/// In a `whole` lane, the rows to be removed are all rows between the first and the last of them. Such a lane is
/// removed as a range, which costs the server a quarter less than a comparison with a list. The number of removed rows
/// is checked; the call fails with [`RepositoryError::OutboxDiffers`] if it is not the expected one.
///
/// A retry after an unknown outcome is safe, if `whole` is then empty.
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
        delete_ranges(connection, &of_whole).await?;
        delete_rows(connection, &others).await
    })
    .await
}

/// The first and the last id of each lane, as columns.
struct IdRanges {
    lanes: Vec<i16>,
    firsts: Vec<i64>,
    lasts: Vec<i64>,
}

impl IdRanges {
    fn new(rows: &[OutboxRowId]) -> Self {
        let mut ranges: BTreeMap<i16, (i64, i64)> = BTreeMap::new();
        for OutboxRowId { lane, id, .. } in rows {
            let (first, last) = ranges.entry(*lane).or_insert((*id, *id));
            (*first, *last) = ((*first).min(*id), (*last).max(*id));
        }
        let lanes = ranges.keys().copied().collect();
        let (firsts, lasts) = ranges.into_values().unzip();
        Self { lanes, firsts, lasts }
    }
}

async fn delete_ranges(connection: &mut Connection, rows: &[OutboxRowId]) -> Result<(), RepositoryError> {
    if rows.is_empty() {
        return Ok(());
    }
    let IdRanges { lanes, firsts, lasts } = IdRanges::new(rows);
    let deleted = statement(include_str!("delete_ranges.sql"))
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

async fn delete_rows(connection: &mut Connection, rows: &[OutboxRowId]) -> Result<(), RepositoryError> {
    if rows.is_empty() {
        return Ok(());
    }
    let ranges = IdRanges::new(rows);
    let lanes: Vec<i16> = rows.iter().map(|row| row.lane).collect();
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let event_ids: Vec<Uuid> = rows.iter().map(|row| row.event_id).collect();
    statement(include_str!("delete_rows.sql"))
        .bind::<Array<SmallInt>, _>(ranges.lanes)
        .bind::<Array<BigInt>, _>(ranges.firsts)
        .bind::<Array<BigInt>, _>(ranges.lasts)
        .bind::<Array<SmallInt>, _>(lanes)
        .bind::<Array<BigInt>, _>(ids)
        .bind::<Array<SqlUuid>, _>(event_ids)
        .execute(connection)
        .await?;
    Ok(())
}

/// Moves the row to the dead letters, if it is still present.
async fn dead_letter(connection: &mut Connection, rejected: &RejectedRow) -> Result<(), RepositoryError> {
    let row = &rejected.row;
    statement(include_str!("dead_letter.sql"))
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
