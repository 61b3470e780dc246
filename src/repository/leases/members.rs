//! Members of a group of processes that share leases.

use std::time::Duration;

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Text},
};
use diesel_async::RunQueryDsl;

use super::{
    super::{Bind, Connection, RepositoryError, statement},
    lease::milliseconds,
};

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Says that `member` takes part in `group` for another `ttl`, forgets who fell silent, and answers everybody who takes
/// part, sorted, `member` included.
pub async fn heartbeat(
    connection: &mut Connection,
    group: &str,
    member: &str,
    ttl: Duration,
) -> Result<Vec<String>, RepositoryError> {
    statement(
        "INSERT INTO lease_members (lease_group, member, expires_at)
         VALUES (?, ?, clock_timestamp() + ? * interval '1 millisecond')
         ON CONFLICT (lease_group, member) DO UPDATE SET expires_at = excluded.expires_at",
    )
    .bind::<Text, _>(group)
    .bind::<Text, _>(member)
    .bind::<BigInt, _>(milliseconds(ttl))
    .execute(connection)
    .await?;
    let members: Vec<Name> = statement(
        "WITH silent AS (
           SELECT lease_group, member FROM lease_members
           WHERE lease_group = ? AND expires_at < clock_timestamp() FOR UPDATE SKIP LOCKED),
         forgotten AS (
           DELETE FROM lease_members m USING silent s
           WHERE m.lease_group = s.lease_group AND m.member = s.member)
         SELECT member AS name FROM lease_members
         WHERE lease_group = ? AND expires_at >= clock_timestamp() ORDER BY member",
    )
    .bind::<Text, _>(group)
    .bind::<Text, _>(group)
    .get_results(connection)
    .await?;
    Ok(members.into_iter().map(|row| row.name).collect())
}

/// Who takes part in `group` and gave a sign of life within its time, sorted.
pub async fn members(connection: &mut Connection, group: &str) -> Result<Vec<String>, RepositoryError> {
    let members: Vec<Name> = statement(
        "SELECT member AS name FROM lease_members
         WHERE lease_group = ? AND expires_at >= clock_timestamp() ORDER BY member",
    )
    .bind::<Text, _>(group)
    .get_results(connection)
    .await?;
    Ok(members.into_iter().map(|row| row.name).collect())
}

/// Takes `member` out of `group`, so that the others share anew at once.
pub async fn leave(connection: &mut Connection, group: &str, member: &str) -> Result<(), RepositoryError> {
    statement("DELETE FROM lease_members WHERE lease_group = ? AND member = ?")
        .bind::<Text, _>(group)
        .bind::<Text, _>(member)
        .execute(connection)
        .await?;
    Ok(())
}
