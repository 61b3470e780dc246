//! Looking leases up.

use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{Array, Text},
};
use diesel_async::RunQueryDsl;

use super::{
    super::{Bind, Connection, RepositoryError, statement},
    lease::LeaseState,
};

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

/// The leases of these names that are there, in no order, for people.
pub async fn states(
    connection: &mut Connection,
    names: &[String],
) -> Result<Vec<LeaseState>, RepositoryError> {
    let states = statement(
        "SELECT name, owner, epoch, CASE WHEN owner IS NOT NULL THEN
                  extract(epoch FROM expires_at - clock_timestamp())::float8 END AS remaining_seconds
         FROM leases WHERE name = ANY(?)",
    )
    .bind::<Array<Text>, _>(names)
    .get_results(connection)
    .await?;
    Ok(states)
}

/// Who holds one of `names` and has not fallen silent, sorted. The leases stay locked until the transaction ends, so
/// nobody takes one of them before that; only a lease whose row is missing (see [`create`]) can still be made and taken.
pub async fn lock_owners(
    connection: &mut Connection,
    names: &[String],
) -> Result<Vec<String>, RepositoryError> {
    let owners: Vec<Name> = statement(
        "WITH locked AS (
           SELECT owner, expires_at FROM leases WHERE name = ANY(?) ORDER BY name FOR UPDATE)
         SELECT DISTINCT owner AS name FROM locked
         WHERE owner IS NOT NULL AND expires_at >= clock_timestamp() ORDER BY owner",
    )
    .bind::<Array<Text>, _>(names)
    .get_results(connection)
    .await?;
    Ok(owners.into_iter().map(|row| row.name).collect())
}

/// Who holds the lease, or held it last and fell silent.
pub async fn owner(connection: &mut Connection, name: &str) -> Result<Option<String>, RepositoryError> {
    let owner: Option<Name> =
        statement("SELECT owner AS name FROM leases WHERE name = ? AND owner IS NOT NULL")
            .bind::<Text, _>(name)
            .get_result(connection)
            .await
            .optional()?;
    Ok(owner.map(|row| row.name))
}
