//! Appends and reads records.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName,
    sql_types::{Array, BigInt, Binary, Integer, Json, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;
use serde_json::Value;

use super::super::{Bind, Connection, RepositoryError, schema, statement};

/// The records of one append, as columns of equal length, in order.
#[derive(Debug, Default)]
pub struct NewRecords {
    /// The keys.
    pub keys: Vec<Option<Vec<u8>>>,
    /// The values.
    pub values: Vec<Option<Vec<u8>>>,
    /// The headers in the form of `event::Headers::to_json`.
    pub headers: Vec<Value>,
    /// The timestamps.
    pub timestamps: Vec<DateTime<Utc>>,
}

/// A stored record.
#[derive(Debug, QueryableByName)]
pub struct StoredRecord {
    /// The offset in the partition.
    #[diesel(sql_type = BigInt)]
    pub record_offset: i64,
    /// The key.
    #[diesel(sql_type = Nullable<Binary>)]
    pub key: Option<Vec<u8>>,
    /// The value.
    #[diesel(sql_type = Nullable<Binary>)]
    pub value: Option<Vec<u8>>,
    /// The headers in the form of `event::Headers::to_json`.
    #[diesel(sql_type = Json)]
    pub headers: Value,
    /// The timestamp.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
}

/// Appends records in one statement, which is its own database transaction. Returns false for a partition that does not
/// exist.
pub async fn append(
    connection: &mut Connection,
    topic: &str,
    partition: i32,
    records: &NewRecords,
) -> Result<bool, RepositoryError> {
    let count = records.keys.len();
    let bytes: usize = records.keys.iter().chain(&records.values).flatten().map(Vec::len).sum();
    let inserted = statement(include_str!("append.sql"))
        .bind::<BigInt, _>(i64::try_from(count).unwrap_or(i64::MAX))
        .bind::<BigInt, _>(i64::try_from(bytes).unwrap_or(i64::MAX))
        .bind::<Text, _>(topic)
        .bind::<Integer, _>(partition)
        .bind::<Array<Nullable<Binary>>, _>(&records.keys)
        .bind::<Array<Nullable<Binary>>, _>(&records.values)
        .bind::<Array<Json>, _>(&records.headers)
        .bind::<Array<Timestamptz>, _>(&records.timestamps)
        .execute(connection)
        .await?;
    Ok(inserted == count)
}

/// Returns the offset of the first record that is not older than `moment`. Reads from the start of the partition, so it
/// is slow for a large one.
pub async fn offset_at(
    connection: &mut Connection,
    topic: &str,
    partition: i32,
    moment: DateTime<Utc>,
) -> Result<Option<i64>, RepositoryError> {
    let offset = schema::broker_records::table
        .filter(schema::broker_records::topic.eq(topic))
        .filter(schema::broker_records::partition.eq(partition))
        .filter(schema::broker_records::created_at.ge(moment))
        .order(schema::broker_records::record_offset)
        .select(schema::broker_records::record_offset)
        .first(connection)
        .await
        .optional()?;
    Ok(offset)
}

/// Reads at most `count_max` records from `offset` on, until they reach `bytes_max`; at least one, if there is one.
pub async fn read(
    connection: &mut Connection,
    topic: &str,
    partition: i32,
    offset: i64,
    count_max: i64,
    bytes_max: i64,
) -> Result<Vec<StoredRecord>, RepositoryError> {
    let records = statement(include_str!("read.sql"))
        .bind::<Text, _>(topic)
        .bind::<Integer, _>(partition)
        .bind::<BigInt, _>(offset)
        .bind::<BigInt, _>(count_max)
        .bind::<BigInt, _>(bytes_max)
        .get_results(connection)
        .await?;
    Ok(records)
}
