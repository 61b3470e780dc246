//! Appending and reading records.

use chrono::{DateTime, Utc};
use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{Array, BigInt, Binary, Integer, Json, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;
use serde_json::Value;

use super::super::{Bind, Connection, RepositoryError, statement};

/// Records of one append, column by column and in order; all columns are of one length.
#[derive(Debug, Default)]
pub struct NewRecords {
    /// Record keys.
    pub keys: Vec<Option<Vec<u8>>>,
    /// Record values.
    pub values: Vec<Option<Vec<u8>>>,
    /// Headers as `event::Headers::to_json` writes them.
    pub headers: Vec<Value>,
    /// Record timestamps.
    pub timestamps: Vec<DateTime<Utc>>,
}

/// A record as stored.
#[derive(Debug, QueryableByName)]
pub struct StoredRecord {
    /// Position in the partition.
    #[diesel(sql_type = BigInt)]
    pub record_offset: i64,
    /// Record key.
    #[diesel(sql_type = Nullable<Binary>)]
    pub key: Option<Vec<u8>>,
    /// Record value.
    #[diesel(sql_type = Nullable<Binary>)]
    pub value: Option<Vec<u8>>,
    /// Headers as `event::Headers::to_json` writes them.
    #[diesel(sql_type = Json)]
    pub headers: Value,
    /// Record timestamp.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Appends records in one statement, which is its own transaction; answers false if there is no such partition.
pub async fn append(
    connection: &mut Connection,
    topic: &str,
    partition: i32,
    records: &NewRecords,
) -> Result<bool, RepositoryError> {
    let count = records.keys.len();
    let bytes: usize = records.keys.iter().chain(&records.values).flatten().map(Vec::len).sum();
    let inserted = statement(
        "WITH drawn AS (
           UPDATE broker_partitions SET next_offset = next_offset + ?, bytes = bytes + ?
           WHERE topic = ? AND partition = ? RETURNING topic, partition, next_offset),
         record AS (
           SELECT * FROM unnest(?, ?, ?, ?) WITH ORDINALITY AS r (key, value, headers, created_at, position))
         INSERT INTO broker_records (topic, partition, record_offset, key, value, headers, created_at)
         SELECT d.topic, d.partition, d.next_offset - ? + r.position - 1, r.key, r.value, r.headers, r.created_at
         FROM drawn d CROSS JOIN record r",
    )
    .bind::<BigInt, _>(i64::try_from(count).unwrap_or(i64::MAX))
    .bind::<BigInt, _>(i64::try_from(bytes).unwrap_or(i64::MAX))
    .bind::<Text, _>(topic)
    .bind::<Integer, _>(partition)
    .bind::<Array<Nullable<Binary>>, _>(&records.keys)
    .bind::<Array<Nullable<Binary>>, _>(&records.values)
    .bind::<Array<Json>, _>(&records.headers)
    .bind::<Array<Timestamptz>, _>(&records.timestamps)
    .bind::<BigInt, _>(i64::try_from(count).unwrap_or(i64::MAX))
    .execute(connection)
    .await?;
    Ok(inserted == count)
}

/// The first record that is not older than `moment`. Reads from the partition's beginning: not for the path.
pub async fn offset_at(
    connection: &mut Connection,
    topic: &str,
    partition: i32,
    moment: DateTime<Utc>,
) -> Result<Option<i64>, RepositoryError> {
    let found: Option<Count> = statement(
        "SELECT record_offset AS count FROM broker_records
         WHERE topic = ? AND partition = ? AND created_at >= ? ORDER BY record_offset LIMIT 1",
    )
    .bind::<Text, _>(topic)
    .bind::<Integer, _>(partition)
    .bind::<Timestamptz, _>(moment)
    .get_result(connection)
    .await
    .optional()?;
    Ok(found.map(|row| row.count))
}

/// Up to `count_max` records from `offset` on: as many as fit into `bytes_max`, but the first one always.
pub async fn read(
    connection: &mut Connection,
    topic: &str,
    partition: i32,
    offset: i64,
    count_max: i64,
    bytes_max: i64,
) -> Result<Vec<StoredRecord>, RepositoryError> {
    let records = statement(
        "SELECT record_offset, key, value, headers, created_at FROM (
           SELECT *, sum(coalesce(octet_length(value), 0) + coalesce(octet_length(key), 0))
             OVER (ORDER BY record_offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
           FROM (
             SELECT * FROM broker_records WHERE topic = ? AND partition = ? AND record_offset >= ?
             ORDER BY record_offset LIMIT ?) AS next) AS counted
         WHERE coalesce(bytes_before, 0) < ? ORDER BY record_offset",
    )
    .bind::<Text, _>(topic)
    .bind::<Integer, _>(partition)
    .bind::<BigInt, _>(offset)
    .bind::<BigInt, _>(count_max)
    .bind::<BigInt, _>(bytes_max)
    .get_results(connection)
    .await?;
    Ok(records)
}
