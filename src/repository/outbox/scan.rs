//! Reading rows that are still present.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, SmallInt, Text},
};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use futures::TryStreamExt as _;

use super::{
    super::{Bind, Connection, RepositoryError, statement},
    row::{OutboxAddress, OutboxRow},
};

/// Prepares a connection for the statements here. Each of them is served by the primary key, whatever the statistics
/// of a table that fills and empties all day say. A removal that a crash of the server undoes costs duplicates, which
/// consumers drop; so it need not wait for the disk.
pub async fn configure_session(connection: &mut Connection) -> Result<(), RepositoryError> {
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
pub struct OutboxScan {
    /// Lane by lane in id order.
    pub rows: Vec<OutboxRow>,
    /// Whether some lane probably has more.
    pub is_full: bool,
}

/// How far ids were drawn, and who may still be about to commit rows with such ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnIds {
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
pub async fn drawn_ids(connection: &mut Connection) -> Result<DrawnIds, RepositoryError> {
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
    Ok(DrawnIds { last_id, open: open.into_iter().map(|open| open.name).collect() })
}

/// The first rows of each of `lanes` that are not below its floor: up to `count_max` and about `bytes_max` of a lane,
/// but one row always, and up to `total_max` in all. What is beyond the bytes is dropped as it arrives, for a sum kept
/// by the server costs more than all the rest of the query; a caller that meets large rows should ask for fewer.
pub async fn scan(
    connection: &mut Connection,
    lanes: &[i16],
    floors: &[i64],
    count_max: i64,
    bytes_max: usize,
    total_max: i64,
) -> Result<OutboxScan, RepositoryError> {
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
    let mut scan = OutboxScan::default();
    let (mut lane, mut count, mut bytes) = (None, 0, 0);
    while let Some(row) = found.try_next().await? {
        if lane != Some(row.lane) {
            (lane, count, bytes) = (Some(row.lane), 0, 0);
        }
        count += 1;
        let is_beyond = bytes >= bytes_max;
        scan.is_full |= is_beyond || count >= count_max;
        bytes += row.bytes();
        if !is_beyond {
            scan.rows.push(row);
        }
    }
    Ok(scan)
}

/// Like [`scan`], far more rows but only their addresses: to look past rows that cannot be published now.
pub async fn scan_addresses(
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
pub async fn read_rows(
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
