//! The members of a lease group: the processes that share its leases.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use diesel::{
    ExpressionMethods, QueryDsl, QueryableByName,
    sql_types::{Array, BigInt, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;

use super::{
    super::{
        Bind, ClockReading, Connection, RepositoryError, functions::clock_timestamp, schema::lease_members,
        statement,
    },
    lease::milliseconds,
};

#[derive(QueryableByName)]
struct Member {
    #[diesel(sql_type = Text)]
    member: String,
}

#[derive(QueryableByName)]
struct Extended {
    #[diesel(sql_type = Timestamptz)]
    server_time: DateTime<Utc>,
}

/// The result of a heartbeat.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// The live members, sorted, the caller included.
    pub members: Vec<String>,
    /// The database's clock.
    pub server_time: ClockReading,
}

/// Makes `member` a member of `group` for another `ttl`, and deletes members whose time is over.
pub async fn heartbeat(
    connection: &mut Connection,
    group: &str,
    member: &str,
    ttl: Duration,
) -> Result<Heartbeat, RepositoryError> {
    let asked = Instant::now();
    let extended: Extended = statement(include_str!("extend_member.sql"))
        .bind::<Text, _>(group)
        .bind::<Text, _>(member)
        .bind::<BigInt, _>(milliseconds(ttl))
        .get_result(connection)
        .await?;
    let server_time = ClockReading { shown: extended.server_time, asked, answered: Instant::now() };
    let members: Vec<Member> =
        statement(include_str!("live_members.sql")).bind::<Text, _>(group).get_results(connection).await?;
    Ok(Heartbeat { members: members.into_iter().map(|row| row.member).collect(), server_time })
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

/// Returns the live members of all groups of these roles, such as `consume-risk`, sorted.
pub async fn members_of_roles(
    connection: &mut Connection,
    roles: &[&str],
) -> Result<Vec<String>, RepositoryError> {
    let members: Vec<Member> = statement(include_str!("role_members.sql"))
        .bind::<Array<Text>, _>(roles)
        .get_results(connection)
        .await?;
    Ok(members.into_iter().map(|row| row.member).collect())
}

/// Removes `member` from `group`, so that the other members share its leases at once.
pub async fn leave(connection: &mut Connection, group: &str, member: &str) -> Result<(), RepositoryError> {
    diesel::delete(lease_members::table.find((group, member))).execute(connection).await?;
    Ok(())
}
