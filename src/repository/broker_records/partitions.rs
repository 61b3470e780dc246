//! The partitions of topics.

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName,
    sql_types::{BigInt, Integer, Text, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::super::{Bind, Connection, RepositoryError, schema::broker_partitions, statement};

/// The offsets that a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct StoredRange {
    /// The offset of the first record; equal to `latest` in an empty partition.
    #[diesel(sql_type = BigInt)]
    pub earliest: i64,
    /// The offset of the next record to be appended.
    #[diesel(sql_type = BigInt)]
    pub latest: i64,
    /// The id that the partition got when it was created.
    #[diesel(sql_type = SqlUuid)]
    pub log_id: Uuid,
}

/// Returns the number of partitions of a topic; 0 for a topic that does not exist.
pub async fn partitions(connection: &mut Connection, topic: &str) -> Result<i64, RepositoryError> {
    let count = broker_partitions::table
        .filter(broker_partitions::topic.eq(topic))
        .count()
        .get_result(connection)
        .await?;
    Ok(count)
}

/// Creates the missing partitions from 0 to `count` − 1.
pub async fn create_partitions(
    connection: &mut Connection,
    topic: &str,
    count: i32,
) -> Result<(), RepositoryError> {
    let rows: Vec<_> = (0..count)
        .map(|partition| (broker_partitions::topic.eq(topic), broker_partitions::partition.eq(partition)))
        .collect();
    diesel::insert_into(broker_partitions::table)
        .values(rows)
        .on_conflict_do_nothing()
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns the offsets that the partition holds; None for a partition that does not exist.
pub async fn range(
    connection: &mut Connection,
    topic: &str,
    partition: i32,
) -> Result<Option<StoredRange>, RepositoryError> {
    let range = statement(include_str!("range.sql"))
        .bind::<Text, _>(topic)
        .bind::<Integer, _>(partition)
        .get_result(connection)
        .await
        .optional()?;
    Ok(range)
}
