//! The outbox as the relay sees it: rows still present, in order, and their [`removal`] under a lease.
//!
//! There is no cursor: looks begin again and again at the first row that is there, so a row that is committed late, with
//! a lower id than others, is found all the same. Deliberately absent: inserting, which each writer does in its own statement.

mod removal;

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{
        Array, BigInt, Binary, Double, Json, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use futures::TryStreamExt as _;
use serde_json::Value;
use uuid::Uuid;

pub use removal::remove;

use super::{Bind, Connection, RepositoryError, statement};
use crate::event::{Headers, LANES};

/// A row that waits to be published.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct OutboxRow {
    /// Which lane it belongs to.
    #[diesel(sql_type = SmallInt)]
    pub lane: i16,
    /// Its place in the lane.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Where it goes.
    #[diesel(sql_type = Text)]
    pub topic: String,
    /// Decides the partition.
    #[diesel(sql_type = Nullable<Binary>)]
    pub key: Option<Vec<u8>>,
    /// Sent as it is.
    #[diesel(sql_type = Nullable<Binary>)]
    pub value: Option<Vec<u8>>,
    /// The CloudEvents id.
    #[diesel(sql_type = SqlUuid)]
    pub event_id: Uuid,
    /// The CloudEvents type.
    #[diesel(sql_type = Text)]
    pub event_type: String,
    /// The CloudEvents time: when what it tells of happened.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// W3C trace context of the request that caused it.
    #[diesel(sql_type = Nullable<Text>)]
    pub traceparent: Option<String>,
    /// As `event::Headers::to_json` writes them: sent instead of the CloudEvents ones.
    #[diesel(sql_type = Nullable<Json>)]
    pub headers: Option<Value>,
}

/// Which row: its place, and what stands there. After a failover that lost the last commits, another may stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowName {
    /// Its lane.
    pub lane: i16,
    /// Its place in the lane.
    pub id: i64,
    /// The event.
    pub event_id: Uuid,
}

impl OutboxRow {
    /// Tells it from all others.
    pub fn name(&self) -> RowName {
        RowName { lane: self.lane, id: self.id, event_id: self.event_id }
    }

    /// Of key and value.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.value)
    }
}

/// A row without what is to be sent.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct OutboxAddress {
    /// Which lane it belongs to.
    #[diesel(sql_type = SmallInt)]
    pub lane: i16,
    /// Its place in the lane.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Where it goes.
    #[diesel(sql_type = Text)]
    pub topic: String,
    /// Decides the partition.
    #[diesel(sql_type = Nullable<Binary>)]
    pub key: Option<Vec<u8>>,
}

/// How far the outbox is behind.
#[derive(Debug, Clone, Copy, PartialEq, QueryableByName)]
pub struct Backlog {
    /// Rows that wait: exact while they are few, PostgreSQL's own count when they are many.
    #[diesel(sql_type = BigInt)]
    pub rows: i64,
    /// Age of the oldest row at the head of a lane, 0 if there is none.
    #[diesel(sql_type = Double)]
    pub oldest_age_seconds: f64,
}

/// A row that cannot be published, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct ParkedRow {
    /// The row.
    pub row: OutboxRow,
    /// Headers as they would have been sent.
    pub headers: Headers,
    /// Where it would have gone.
    pub partition: i32,
    /// A word for metrics and filters.
    pub reason: &'static str,
    /// For people.
    pub error: String,
}

/// Most rows of a lane that are counted one by one.
const COUNTED_PER_LANE_MAX: i64 = 250;

/// Prepares a connection for the statements here. Each of them is served by the primary key, whatever the statistics
/// of a table that fills and empties all day say. A removal that a crash of the server undoes costs duplicates, which
/// consumers drop; so it need not wait for the disk.
pub async fn prepare(connection: &mut Connection) -> Result<(), RepositoryError> {
    connection
        .batch_execute(
            "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
             SET enable_bitmapscan = off; SET jit = off; SET synchronous_commit = off",
        )
        .await?;
    Ok(())
}

/// Rows as one look finds them.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Lane by lane in id order.
    pub rows: Vec<OutboxRow>,
    /// Whether some lane probably has more.
    pub is_full: bool,
}

/// How far ids were drawn, and who may still be about to commit rows with such ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// The last id drawn.
    pub last_id: i64,
    /// The transactions that had written to the outbox, or were about to, and had not ended.
    pub open: Vec<String>,
}

#[derive(QueryableByName)]
struct LastId {
    #[diesel(sql_type = BigInt)]
    last_id: i64,
}

#[derive(QueryableByName)]
struct Open {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Asks for the ids first, then for the locks: whoever drew one of them has the lock or has ended.
pub async fn drawn(connection: &mut Connection) -> Result<Drawn, RepositoryError> {
    let LastId { last_id } = statement("SELECT last_value - (NOT is_called)::int AS last_id FROM outbox_id")
        .get_result(connection)
        .await?;
    let open: Vec<Open> = statement(
        "SELECT virtualtransaction AS name FROM pg_locks
         WHERE relation = 'outbox'::regclass AND mode = 'RowExclusiveLock' AND granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .get_results(connection)
    .await?;
    Ok(Drawn { last_id, open: open.into_iter().map(|open| open.name).collect() })
}

/// The first rows of each of `lanes` that are not below its floor: up to `count_max` and about `bytes_max` of a lane,
/// but one row always, and up to `total_max` in all. What is beyond the bytes is dropped as it arrives, for a sum kept
/// by the server costs more than all the rest of the query; a caller that meets large rows should ask for fewer.
pub async fn read(
    connection: &mut Connection,
    lanes: &[i16],
    floors: &[i64],
    count_max: i64,
    bytes_max: usize,
    total_max: i64,
) -> Result<Look, RepositoryError> {
    let mut found = statement(
        "SELECT o.* FROM unnest(?, ?) AS l (lane, floor) CROSS JOIN LATERAL (
           SELECT lane, id, topic, key, value, event_id, event_type, created_at, traceparent, headers
           FROM outbox WHERE outbox.lane = l.lane AND outbox.id >= l.floor ORDER BY id LIMIT ?) AS o
         LIMIT ?",
    )
    .bind::<Array<SmallInt>, _>(lanes)
    .bind::<Array<BigInt>, _>(floors)
    .bind::<BigInt, _>(count_max)
    .bind::<BigInt, _>(total_max)
    .load_stream::<OutboxRow>(connection)
    .await?;
    let mut look = Look::default();
    let (mut lane, mut count, mut bytes) = (None, 0, 0);
    while let Some(row) = found.try_next().await? {
        if lane != Some(row.lane) {
            (lane, count, bytes) = (Some(row.lane), 0, 0);
        }
        count += 1;
        let is_beyond = bytes >= bytes_max;
        look.is_full |= is_beyond || count >= count_max;
        bytes += row.bytes();
        if !is_beyond {
            look.rows.push(row);
        }
    }
    Ok(look)
}

/// Like [`read`], far more rows but only their addresses: to look past rows that cannot be published now.
pub async fn read_addresses(
    connection: &mut Connection,
    lanes: &[i16],
    floors: &[i64],
    count_max: i64,
) -> Result<Vec<OutboxAddress>, RepositoryError> {
    let rows = statement(
        "SELECT o.* FROM unnest(?, ?) AS l (lane, floor) CROSS JOIN LATERAL (
           SELECT lane, id, topic, key FROM outbox
           WHERE outbox.lane = l.lane AND outbox.id >= l.floor ORDER BY id LIMIT ?) AS o",
    )
    .bind::<Array<SmallInt>, _>(lanes)
    .bind::<Array<BigInt>, _>(floors)
    .bind::<BigInt, _>(count_max)
    .get_results(connection)
    .await?;
    Ok(rows)
}

/// The rows at these addresses that are still there, in the order of the addresses, until they are about `bytes_max`.
pub async fn read_at(
    connection: &mut Connection,
    addresses: &[OutboxAddress],
    bytes_max: usize,
) -> Result<Vec<OutboxRow>, RepositoryError> {
    let (lanes, ids): (Vec<i16>, Vec<i64>) =
        addresses.iter().map(|address| (address.lane, address.id)).unzip();
    let mut found = statement(
        "SELECT o.* FROM unnest(?, ?) WITH ORDINALITY AS a (lane, id, position)
         JOIN outbox o ON o.lane = a.lane AND o.id = a.id ORDER BY a.position",
    )
    .bind::<Array<SmallInt>, _>(lanes)
    .bind::<Array<BigInt>, _>(ids)
    .load_stream::<OutboxRow>(connection)
    .await?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.try_next().await? {
        if bytes < bytes_max {
            bytes += row.bytes();
            rows.push(row);
        }
    }
    Ok(rows)
}

/// How far the outbox is behind, at the cost of a few thousand index entries at most, if the floors of all lanes are
/// known; each is 0 if not.
pub async fn backlog(connection: &mut Connection, floors: &[i64]) -> Result<Backlog, RepositoryError> {
    let lanes: Vec<i16> = (0..LANES).collect();
    let backlog = statement(
        "WITH lane AS (
           SELECT first.created_at, counted.rows
           FROM unnest(?, ?) AS l (lane, floor)
           CROSS JOIN LATERAL (
             SELECT created_at FROM outbox
             WHERE outbox.lane = l.lane AND outbox.id >= l.floor ORDER BY id LIMIT 1) AS first
           CROSS JOIN LATERAL (
             SELECT count(*) AS rows FROM (
               SELECT 1 FROM outbox
               WHERE outbox.lane = l.lane AND outbox.id >= l.floor ORDER BY id LIMIT ?) AS bounded) AS counted)
         SELECT CASE WHEN coalesce(max(rows), 0) < ? THEN coalesce(sum(rows), 0)::bigint
                ELSE greatest(sum(rows)::bigint, (
                  SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = 'outbox'::regclass)) END AS rows,
                coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS oldest_age_seconds
         FROM lane",
    )
    .bind::<Array<SmallInt>, _>(lanes)
    .bind::<Array<BigInt>, _>(floors)
    .bind::<BigInt, _>(COUNTED_PER_LANE_MAX)
    .bind::<BigInt, _>(COUNTED_PER_LANE_MAX)
    .get_result(connection)
    .await?;
    Ok(backlog)
}
