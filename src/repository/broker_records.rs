//! The PostgreSQL broker's tables: partitions with their next offset, and records.
//!
//! Guarantees: an offset is drawn under its partition's row lock in the statement that inserts the record, so offsets
//! have no gaps and become visible in order; records leave only from the front of their partition, so what is there has
//! no gaps either. Deliberately absent: deciding when records leave, which is the broker's.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{Array, BigInt, Binary, Double, Integer, Json, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;
use serde_json::Value;

use super::{Bind, Connection, RepositoryError, statement};

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

/// What a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct StoredRange {
    /// First offset there; equal to `latest` when there is none.
    #[diesel(sql_type = BigInt)]
    pub earliest: i64,
    /// The next offset to be given.
    #[diesel(sql_type = BigInt)]
    pub latest: i64,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// How many partitions a topic has; 0 if there is no such topic.
pub async fn partitions(connection: &mut Connection, topic: &str) -> Result<i64, RepositoryError> {
    let row: Count = statement("SELECT count(*) AS count FROM broker_partitions WHERE topic = ?")
        .bind::<Text, _>(topic)
        .get_result(connection)
        .await?;
    Ok(row.count)
}

/// Makes partitions 0 to `count` − 1 where they are missing.
pub async fn create_partitions(
    connection: &mut Connection,
    topic: &str,
    count: i32,
) -> Result<(), RepositoryError> {
    statement(
        "INSERT INTO broker_partitions (topic, partition)
         SELECT ?, generate_series(0, ? - 1) ON CONFLICT DO NOTHING",
    )
    .bind::<Text, _>(topic)
    .bind::<Integer, _>(count)
    .execute(connection)
    .await?;
    Ok(())
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

/// What the partition holds; None if there is no such partition.
pub async fn range(
    connection: &mut Connection,
    topic: &str,
    partition: i32,
) -> Result<Option<StoredRange>, RepositoryError> {
    let range = statement(
        "SELECT p.next_offset AS latest, coalesce(
           (SELECT r.record_offset FROM broker_records r
            WHERE r.topic = p.topic AND r.partition = p.partition ORDER BY r.record_offset LIMIT 1),
           p.next_offset) AS earliest
         FROM broker_partitions p WHERE p.topic = ? AND p.partition = ?",
    )
    .bind::<Text, _>(topic)
    .bind::<Integer, _>(partition)
    .get_result(connection)
    .await
    .optional()?;
    Ok(range)
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

/// Removes records from the front of a partition while they are older than `age_max` or the partition holds more than
/// `bytes_max`, at most `count_max` of them, and none that a group with a position here has still to handle. Answers how
/// many. Two that do it at once do no harm: one finds nothing left.
pub async fn remove_front(
    connection: &mut Connection,
    topic: &str,
    partition: i32,
    age_max: Option<Duration>,
    bytes_max: Option<u64>,
    count_max: i64,
) -> Result<i64, RepositoryError> {
    let removed: Count = statement(
        "WITH held AS (
           SELECT p.bytes - ? AS excess, coalesce((
             SELECT min(c.next_offset) FROM consumer_positions c
             WHERE c.topic = p.topic AND c.partition = p.partition), p.next_offset) AS needed
           FROM broker_partitions p WHERE p.topic = ? AND p.partition = ?),
         front AS MATERIALIZED (
           SELECT record_offset, created_at, sum(size) OVER (ORDER BY record_offset) AS bytes_upto FROM (
             SELECT record_offset, created_at, coalesce(octet_length(key), 0) + coalesce(octet_length(value), 0) AS size
             FROM broker_records WHERE topic = ? AND partition = ? AND record_offset < (SELECT needed FROM held)
             ORDER BY record_offset LIMIT ?) AS first),
         cut AS (
           SELECT coalesce(
             min(record_offset) FILTER (
               WHERE NOT coalesce(created_at < clock_timestamp() - make_interval(secs => ?), false)
                 AND NOT coalesce(bytes_upto <= (SELECT excess FROM held), false)),
             max(record_offset) + 1) AS first_kept FROM front),
         removed AS (
           DELETE FROM broker_records r
           WHERE r.topic = ? AND r.partition = ? AND r.record_offset < (SELECT first_kept FROM cut)
           RETURNING coalesce(octet_length(r.key), 0) + coalesce(octet_length(r.value), 0) AS size),
         counted AS (SELECT count(*) AS count, coalesce(sum(size), 0)::bigint AS bytes FROM removed),
         shrunk AS (
           UPDATE broker_partitions p SET bytes = p.bytes - c.bytes FROM counted c
           WHERE p.topic = ? AND p.partition = ? AND c.count > 0)
         SELECT count FROM counted",
    )
    .bind::<Nullable<BigInt>, _>(bytes_max.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
    .bind::<Text, _>(topic)
    .bind::<Integer, _>(partition)
    .bind::<Text, _>(topic)
    .bind::<Integer, _>(partition)
    .bind::<BigInt, _>(count_max)
    .bind::<Nullable<Double>, _>(age_max.map(|age| age.as_secs_f64()))
    .bind::<Text, _>(topic)
    .bind::<Integer, _>(partition)
    .bind::<Text, _>(topic)
    .bind::<Integer, _>(partition)
    .get_result(connection)
    .await?;
    Ok(removed.count)
}
