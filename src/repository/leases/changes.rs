//! Takes, renews, releases and revokes leases.

use std::time::Duration;

use diesel::{
    ExpressionMethods, QueryableByName,
    sql_types::{Array, BigInt, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::{
    super::{Bind, Connection, RepositoryError, schema, statement},
    lease::{OwnedLease, milliseconds},
};

#[derive(QueryableByName)]
struct Revoked {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Nullable<Text>)]
    owner: Option<String>,
}

/// Creates the missing rows, without an owner.
pub async fn create(connection: &mut Connection, names: &[String]) -> Result<(), RepositoryError> {
    let rows: Vec<_> = names.iter().map(|name| schema::leases::name.eq(name)).collect();
    diesel::insert_into(schema::leases::table)
        .values(rows)
        .on_conflict_do_nothing()
        .execute(connection)
        .await?;
    Ok(())
}

/// Extends the leases among `names` that `owner` owns, and returns them. A lease that is locked by a database
/// transaction of the owner is returned without an extension, with its remaining time.
pub async fn renew(
    connection: &mut Connection,
    owner: &str,
    names: &[String],
    ttl: Duration,
) -> Result<Vec<OwnedLease>, RepositoryError> {
    let owned = statement(include_str!("renew.sql"))
        .bind::<Text, _>(owner)
        .bind::<Array<Text>, _>(names)
        .bind::<BigInt, _>(milliseconds(ttl))
        .get_results(connection)
        .await?;
    Ok(owned)
}

/// Takes up to `count` of `names` that have no owner or have expired, and raises their epochs.
pub async fn take(
    connection: &mut Connection,
    owner: &str,
    names: &[String],
    count: usize,
    ttl: Duration,
) -> Result<Vec<OwnedLease>, RepositoryError> {
    take_in_generation(connection, None, owner, names, count, ttl).await
}

/// Takes leases as [`take`] does, or none if the recorded broker is not of this generation.
pub async fn take_in_generation(
    connection: &mut Connection,
    generation: Option<i64>,
    owner: &str,
    names: &[String],
    count: usize,
    ttl: Duration,
) -> Result<Vec<OwnedLease>, RepositoryError> {
    let taken = statement(include_str!("take.sql"))
        .bind::<Array<Text>, _>(names)
        .bind::<BigInt, _>(i64::try_from(count).unwrap_or(i64::MAX))
        .bind::<Text, _>(owner)
        .bind::<BigInt, _>(milliseconds(ttl))
        .bind::<Nullable<BigInt>, _>(generation)
        .get_results(connection)
        .await?;
    Ok(taken)
}

/// Releases the leases among `names` that `owner` owns, so that other processes need not wait until they expire.
pub async fn release(
    connection: &mut Connection,
    owner: &str,
    names: &[String],
) -> Result<(), RepositoryError> {
    statement(include_str!("release.sql"))
        .bind::<Text, _>(owner)
        .bind::<Array<Text>, _>(names)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes `names` away from their owners: raises the epochs and leaves the leases without an owner. The leases stay
/// locked until the database transaction ends, so no process works under them before the caller's changes are visible.
/// Returns the name and the owner of each lease that had not expired.
pub async fn revoke(
    connection: &mut Connection,
    names: &[String],
) -> Result<Vec<(String, String)>, RepositoryError> {
    create(connection, names).await?;
    let revoked: Vec<Revoked> =
        statement(include_str!("revoke.sql")).bind::<Array<Text>, _>(names).get_results(connection).await?;
    Ok(revoked.into_iter().filter_map(|row| Some((row.name, row.owner?))).collect())
}
