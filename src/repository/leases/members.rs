//! The members of a lease group: the processes that share its leases.

use std::time::Duration;

use diesel::{
    ExpressionMethods, QueryDsl, QueryableByName,
    sql_types::{BigInt, Text},
};
use diesel_async::RunQueryDsl;

use super::{
    super::{
        Bind, Connection, RepositoryError, functions::clock_timestamp, schema::lease_members, statement,
    },
    lease::milliseconds,
};

#[derive(QueryableByName)]
struct Member {
    #[diesel(sql_type = Text)]
    member: String,
}

/// Makes `member` a member of `group` for another `ttl`, deletes members whose time is over, and returns the live
/// members, sorted, `member` included.
pub async fn heartbeat(
    connection: &mut Connection,
    group: &str,
    member: &str,
    ttl: Duration,
) -> Result<Vec<String>, RepositoryError> {
    statement(include_str!("extend_member.sql"))
        .bind::<Text, _>(group)
        .bind::<Text, _>(member)
        .bind::<BigInt, _>(milliseconds(ttl))
        .execute(connection)
        .await?;
    let members: Vec<Member> =
        statement(include_str!("live_members.sql")).bind::<Text, _>(group).get_results(connection).await?;
    Ok(members.into_iter().map(|row| row.member).collect())
}

/// Returns the live members of `group`, sorted.
pub async fn members(connection: &mut Connection, group: &str) -> Result<Vec<String>, RepositoryError> {
    let members = lease_members::table
        .filter(lease_members::lease_group.eq(group))
        .filter(lease_members::expires_at.ge(clock_timestamp()))
        .order(lease_members::member)
        .select(lease_members::member)
        .load(connection)
        .await?;
    Ok(members)
}

/// Removes `member` from `group`, so that the other members share its leases at once.
pub async fn leave(connection: &mut Connection, group: &str, member: &str) -> Result<(), RepositoryError> {
    diesel::delete(lease_members::table.find((group, member))).execute(connection).await?;
    Ok(())
}
