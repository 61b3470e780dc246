//! Scans: bounded reads of the rows still present in lanes.

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

/// The rows that one scan found.
#[derive(Debug, Clone, Default)]
pub struct OutboxScan {
    /// The rows, lane by lane, in the order of their ids.
    pub rows: Vec<OutboxRow>,
    /// Whether a lane probably has more rows.
    pub is_full: bool,
}

/// The last id that was drawn from the sequence of the outbox, and the database transactions that may still commit rows
/// with drawn ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DrawnIds {
    /// The last id that was drawn.
    pub last_id: i64,
    /// The open database transactions that have written, or are about to write, to the outbox.
    pub open: Vec<String>,
}

#[derive(QueryableByName)]
struct LastId {
    #[diesel(sql_type = BigInt)]
    last_id: i64,
}

#[derive(QueryableByName)]
struct OpenTransaction {
    #[diesel(sql_type = Text)]
    virtual_transaction: String,
}

/// Sets the session settings for the statements of this module.
///
/// - Each statement has a plan on the primary key. The other plans are off, because the statistics of a table that
///   fills and empties all day are often wrong.
/// - `synchronous_commit` is off. A crash of the server may undo a removal; the rows are then published again, and
///   consumers drop the duplicates.
pub async fn configure_session(connection: &mut Connection) -> Result<(), RepositoryError> {
    connection
        .batch_execute(
            "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
             SET enable_bitmapscan = off; SET jit = off; SET synchronous_commit = off",
        )
        .await?;
    Ok(())
}

/// Returns the last id that was drawn from the sequence of the outbox.
pub async fn last_id(connection: &mut Connection) -> Result<i64, RepositoryError> {
    let LastId { last_id } = statement(include_str!("last_id.sql")).get_result(connection).await?;
    Ok(last_id)
}

/// Returns the last drawn id and the open database transactions. The id must be read first: a database transaction that
/// drew this id or a lower one is then either still open and listed, or has ended.
pub async fn drawn_ids(connection: &mut Connection) -> Result<DrawnIds, RepositoryError> {
    let last_id = last_id(connection).await?;
    let open: Vec<OpenTransaction> =
        statement(include_str!("open_transactions.sql")).get_results(connection).await?;
    Ok(DrawnIds { last_id, open: open.into_iter().map(|open| open.virtual_transaction).collect() })
}

/// Reads the first rows of each of `lanes` from its scan floor on.
///
/// - A lane gives at most `count_max` rows and about `bytes_max` bytes, but at least one row.
/// - All lanes together give at most `total_max` rows.
/// - Rows beyond `bytes_max` are dropped when they arrive, because a running sum would cost more than the rest of the
///   query. A caller that gets large rows should ask for fewer.
pub async fn scan(
    connection: &mut Connection,
    lanes: &[i16],
    floors: &[i64],
    count_max: i64,
    bytes_max: usize,
    total_max: i64,
) -> Result<OutboxScan, RepositoryError> {
    let mut found = statement(include_str!("scan.sql"))
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

/// Reads the addresses of the first rows of each lane, many more than [`scan`] reads. The relay uses it to find rows
/// that it can publish behind the rows of paused partitions.
pub async fn scan_addresses(
    connection: &mut Connection,
    lanes: &[i16],
    floors: &[i64],
    count_max: i64,
) -> Result<Vec<OutboxAddress>, RepositoryError> {
    let rows = statement(include_str!("scan_addresses.sql"))
        .bind::<Array<SmallInt>, _>(lanes)
        .bind::<Array<BigInt>, _>(floors)
        .bind::<BigInt, _>(count_max)
        .get_results(connection)
        .await?;
    Ok(rows)
}

/// Reads the rows at these addresses that are still present, in the order of the addresses, until they reach
/// `bytes_max`.
pub async fn read_rows(
    connection: &mut Connection,
    addresses: &[OutboxAddress],
    bytes_max: usize,
) -> Result<Vec<OutboxRow>, RepositoryError> {
    let (lanes, ids): (Vec<i16>, Vec<i64>) =
        addresses.iter().map(|address| (address.lane, address.id)).unzip();
    let mut found = statement(include_str!("read_rows.sql"))
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
