//! Compares the dead letters with the dead-letter topic. Call [`super::snapshot()`] first: it creates the temporary
//! tables.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    super::{Bind, Connection, RepositoryError, statement},
    findings::{Findings, find},
};

#[derive(QueryableByName)]
struct Matched {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Notes the dead letters that have a record in the dead-letter topic. Returns how many of the ids belong to no dead
/// letter.
pub async fn match_dead_letters(connection: &mut Connection, ids: &[Uuid]) -> Result<i64, RepositoryError> {
    let matched: Matched = statement(include_str!("dead_letters/match.sql"))
        .bind::<Array<SqlUuid>, _>(ids)
        .get_result(connection)
        .await?;
    let given = i64::try_from(ids.len()).unwrap_or(i64::MAX);
    Ok((given - matched.count).max(0))
}

/// Finds dead letters of the snapshot that are neither in the outbox nor in the dead-letter topic.
pub async fn unpublished_dead_letters(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("dead_letters/unpublished.sql"))).await
}
