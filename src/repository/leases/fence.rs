//! The fence of a transaction that works under leases.

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
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

/// The fence: call it inside the transaction that does the leased work. It locks the leases until that transaction
/// ends and extends them, for this is a sign of life; it fails with [`RepositoryError::LeaseLost`] if one of them is
/// somebody else's by now.
pub async fn hold(connection: &mut Connection, leases: &[&Lease]) -> Result<(), RepositoryError> {
    let names: Vec<&str> = leases.iter().map(|lease| lease.name.as_str()).collect();
    let owners: Vec<&str> = leases.iter().map(|lease| lease.owner.as_str()).collect();
    let epochs: Vec<i64> = leases.iter().map(|lease| lease.epoch).collect();
    let ttls: Vec<i64> = leases.iter().map(|lease| milliseconds(lease.ttl)).collect();
    let held: Vec<Name> = statement(
        "WITH mine AS (
           SELECT l.name, m.ttl
           FROM unnest(?, ?, ?, ?) AS m (name, owner, epoch, ttl)
           JOIN leases l ON l.name = m.name AND l.owner = m.owner AND l.epoch = m.epoch
           ORDER BY l.name FOR UPDATE OF l)
         UPDATE leases l
         SET expires_at = greatest(l.expires_at, clock_timestamp() + mine.ttl * interval '1 millisecond')
         FROM mine WHERE l.name = mine.name RETURNING l.name",
    )
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
