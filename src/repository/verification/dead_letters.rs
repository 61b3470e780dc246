//! Compares the dead letters with the dead-letter topic. Call [`super::snapshot()`] first: it creates the temporary
//! tables.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Integer, Text},
};
use diesel_async::RunQueryDsl;

use super::{
    super::{Bind, Connection, RepositoryError, statement},
    findings::{Findings, find},
};

/// The record that a record of the dead-letter topic was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterOrigin {
    /// The consumer group that gave the record up.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

#[derive(QueryableByName)]
struct Matched {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Notes the dead letters that have a record in the dead-letter topic. Returns how many of the records belong to no
/// dead letter.
pub async fn match_dead_letters(
    connection: &mut Connection,
    origins: &[DeadLetterOrigin],
) -> Result<i64, RepositoryError> {
    let groups: Vec<&str> = origins.iter().map(|origin| origin.group.as_str()).collect();
    let topics: Vec<&str> = origins.iter().map(|origin| origin.topic.as_str()).collect();
    let partitions: Vec<i32> = origins.iter().map(|origin| origin.partition).collect();
    let offsets: Vec<i64> = origins.iter().map(|origin| origin.offset).collect();
    let matched: Matched = statement(include_str!("dead_letters/match.sql"))
        .bind::<Array<Text>, _>(groups)
        .bind::<Array<Text>, _>(topics)
        .bind::<Array<Integer>, _>(partitions)
        .bind::<Array<BigInt>, _>(offsets)
        .get_result(connection)
        .await?;
    let given = i64::try_from(origins.len()).unwrap_or(i64::MAX);
    Ok((given - matched.count).max(0))
}

/// Finds dead letters of the snapshot that are neither in the outbox nor in the dead-letter topic.
pub async fn unpublished_dead_letters(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("dead_letters/unpublished.sql"))).await
}
