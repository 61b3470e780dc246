//! The terms of leases: taking, renewing and ending them.

use std::time::Duration;

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::{
    super::{Bind, Connection, RepositoryError, statement},
    lease::{OwnedLease, milliseconds},
};

#[derive(QueryableByName)]
struct Revoked {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Nullable<Text>)]
    owner: Option<String>,
}

/// Makes the rows that are missing; nobody holds them yet.
pub async fn create(connection: &mut Connection, names: &[String]) -> Result<(), RepositoryError> {
    statement("INSERT INTO leases (name) SELECT unnest(?) ON CONFLICT DO NOTHING")
        .bind::<Array<Text>, _>(names)
        .execute(connection)
        .await?;
    Ok(())
}

/// Extends what `owner` holds of `names` and answers it. A lease that one of the owner's own transactions holds right
/// now is not waited for: it is answered with the time that it has left.
pub async fn renew(
    connection: &mut Connection,
    owner: &str,
    names: &[String],
    ttl: Duration,
) -> Result<Vec<OwnedLease>, RepositoryError> {
    let owned = statement(
        "WITH mine AS (
           SELECT name FROM leases WHERE owner = ? AND name = ANY(?) FOR UPDATE SKIP LOCKED),
         renewed AS (
           UPDATE leases l SET expires_at = clock_timestamp() + ? * interval '1 millisecond'
           FROM mine WHERE l.name = mine.name RETURNING l.name, l.expires_at)
         SELECT l.name, l.epoch, extract(epoch FROM
           coalesce(r.expires_at, l.expires_at) - clock_timestamp())::float8 AS remaining_seconds
         FROM leases l LEFT JOIN renewed r ON r.name = l.name
         WHERE l.owner = ? AND l.name = ANY(?) ORDER BY l.name",
    )
    .bind::<Text, _>(owner)
    .bind::<Array<Text>, _>(names)
    .bind::<BigInt, _>(milliseconds(ttl))
    .bind::<Text, _>(owner)
    .bind::<Array<Text>, _>(names)
    .get_results(connection)
    .await?;
    Ok(owned)
}

/// Takes up to `count` of `names` that nobody holds or whose holder fell silent, and raises their epochs.
pub async fn take(
    connection: &mut Connection,
    owner: &str,
    names: &[String],
    count: usize,
    ttl: Duration,
) -> Result<Vec<OwnedLease>, RepositoryError> {
    let taken = statement(
        "WITH free AS (
           SELECT name FROM leases
           WHERE name = ANY(?) AND (owner IS NULL OR expires_at < clock_timestamp())
           ORDER BY name LIMIT ? FOR UPDATE SKIP LOCKED)
         UPDATE leases l SET owner = ?, epoch = l.epoch + 1,
           expires_at = clock_timestamp() + ? * interval '1 millisecond'
         FROM free WHERE l.name = free.name
         RETURNING l.name, l.epoch, extract(epoch FROM l.expires_at - clock_timestamp())::float8 AS remaining_seconds",
    )
    .bind::<Array<Text>, _>(names)
    .bind::<BigInt, _>(i64::try_from(count).unwrap_or(i64::MAX))
    .bind::<Text, _>(owner)
    .bind::<BigInt, _>(milliseconds(ttl))
    .get_results(connection)
    .await?;
    Ok(taken)
}

/// Gives up what `owner` holds of `names`, so that others need not wait until it expires.
pub async fn release(
    connection: &mut Connection,
    owner: &str,
    names: &[String],
) -> Result<(), RepositoryError> {
    statement(
        "WITH mine AS (
           SELECT name FROM leases WHERE owner = ? AND name = ANY(?) ORDER BY name FOR UPDATE)
         UPDATE leases l SET owner = NULL, expires_at = '-infinity' FROM mine WHERE l.name = mine.name",
    )
    .bind::<Text, _>(owner)
    .bind::<Array<Text>, _>(names)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends the term of whoever holds one of `names`, without asking: raises the epochs and leaves the leases free. They
/// stay locked until the transaction ends, so nobody works under them before what it does is there to be seen.
/// Answers from whom they were taken.
pub async fn revoke(
    connection: &mut Connection,
    names: &[String],
) -> Result<Vec<(String, String)>, RepositoryError> {
    create(connection, names).await?;
    let revoked: Vec<Revoked> = statement(
        "WITH held AS (
           SELECT name, owner, expires_at FROM leases WHERE name = ANY(?) ORDER BY name FOR UPDATE)
         UPDATE leases l SET owner = NULL, epoch = l.epoch + 1, expires_at = '-infinity'
         FROM held WHERE l.name = held.name
         RETURNING l.name, CASE WHEN held.expires_at >= clock_timestamp() THEN held.owner END AS owner",
    )
    .bind::<Array<Text>, _>(names)
    .get_results(connection)
    .await?;
    Ok(revoked.into_iter().filter_map(|row| Some((row.name, row.owner?))).collect())
}
