//! The fence of a database transaction that works under leases.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Text},
};
use diesel_async::RunQueryDsl;

use super::{
    super::{Bind, Connection, RepositoryError, statement},
    lease::{Lease, milliseconds},
};

#[derive(QueryableByName)]
struct Held {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Locks `leases` until the database transaction ends, and extends them. Call it inside the transaction that does the
/// leased work. Fails with [`RepositoryError::LeaseLost`] if another process has taken one of them.
pub async fn hold(connection: &mut Connection, leases: &[&Lease]) -> Result<(), RepositoryError> {
    let names: Vec<&str> = leases.iter().map(|lease| lease.name.as_str()).collect();
    let owners: Vec<&str> = leases.iter().map(|lease| lease.owner.as_str()).collect();
    let epochs: Vec<i64> = leases.iter().map(|lease| lease.epoch).collect();
    let ttls: Vec<i64> = leases.iter().map(|lease| milliseconds(lease.ttl)).collect();
    let held: Vec<Held> = statement(include_str!("hold.sql"))
        .bind::<Array<Text>, _>(&names)
        .bind::<Array<Text>, _>(owners)
        .bind::<Array<BigInt>, _>(epochs)
        .bind::<Array<BigInt>, _>(ttls)
        .get_results(connection)
        .await?;
    match names.iter().find(|name| !held.iter().any(|held| held.name == **name)) {
        Some(lost) => Err(RepositoryError::LeaseLost((*lost).to_owned())),
        None => Ok(()),
    }
}
