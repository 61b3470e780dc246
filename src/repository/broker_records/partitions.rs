//! Partitions of topics.

use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{BigInt, Integer, Text},
};
use diesel_async::RunQueryDsl;

use super::super::{Bind, Connection, RepositoryError, statement};

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
