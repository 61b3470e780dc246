//! Look-ups of leases.

use diesel::{
    OptionalExtension, QueryDsl, QueryableByName,
    sql_types::{Array, Text},
};
use diesel_async::RunQueryDsl;

use super::{
    super::{Bind, Connection, RepositoryError, schema, statement},
    lease::LeaseState,
};

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(QueryableByName)]
struct Owner {
    #[diesel(sql_type = Text)]
    owner: String,
}

/// Returns the leases of these names that exist, in no order.
pub async fn states(
    connection: &mut Connection,
    names: &[String],
) -> Result<Vec<LeaseState>, RepositoryError> {
    let states =
        statement(include_str!("states.sql")).bind::<Array<Text>, _>(names).get_results(connection).await?;
    Ok(states)
}

/// Locks the leases `names` until the database transaction ends, and returns the owners of unexpired leases, sorted. No
/// process can take a locked lease. A lease without a row is not locked; see [`super::create`].
pub async fn lock_owners(
    connection: &mut Connection,
    names: &[String],
) -> Result<Vec<String>, RepositoryError> {
    let owners: Vec<Owner> = statement(include_str!("lock_owners.sql"))
        .bind::<Array<Text>, _>(names)
        .get_results(connection)
        .await?;
    Ok(owners.into_iter().map(|row| row.owner).collect())
}

/// Returns the names of all leases of these roles, such as `relay`.
pub async fn names_of_roles(
    connection: &mut Connection,
    roles: &[&str],
) -> Result<Vec<String>, RepositoryError> {
    let names: Vec<Name> = statement(include_str!("role_leases.sql"))
        .bind::<Array<Text>, _>(roles)
        .get_results(connection)
        .await?;
    Ok(names.into_iter().map(|row| row.name).collect())
}

/// Returns the owner of the lease, also after it has expired.
pub async fn owner(connection: &mut Connection, name: &str) -> Result<Option<String>, RepositoryError> {
    let owner: Option<Option<String>> =
        schema::leases::table.find(name).select(schema::leases::owner).first(connection).await.optional()?;
    Ok(owner.flatten())
}
