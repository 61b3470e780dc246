//! Leases: who may do what until when, by the database's clock, and who takes part in a group.
//!
//! Guarantees: taking a lease raises its epoch; [`hold`] inside a transaction keeps everybody else from taking the
//! lease until that transaction ends, and fails if somebody already has. Waits for locks are always in name order, and
//! renewing or taking never waits for one, so nothing here can deadlock. Deliberately absent: any decision about who
//! should hold how much; that is `runtime::LeaseGroup`.

use std::{sync::Arc, time::Duration};

use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{Array, BigInt, Double, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::{Bind, Connection, RepositoryError, statement};

/// The right to do the work that `name` stands for, as long as nobody raised the epoch. Clones are the same lease;
/// while one is alive outside its group, the group does not give the lease up of its own accord.
#[derive(Debug, Clone)]
pub struct Lease {
    /// What it is for, `relay/lane/7`.
    pub name: String,
    /// Who holds it: an instance's name.
    pub owner: String,
    /// The term; rises each time the lease is taken.
    pub epoch: i64,
    ttl: Duration,
    in_use: Arc<()>,
}

impl Lease {
    /// A lease as the database answered it. `ttl` is how long each sign of life keeps it.
    pub fn new(name: String, owner: String, epoch: i64, ttl: Duration) -> Self {
        Self { name, owner, epoch, ttl, in_use: Arc::new(()) }
    }

    /// Whether somebody besides the caller has a clone.
    pub fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.in_use) > 1
    }
}

impl PartialEq for Lease {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.owner, self.epoch) == (&other.name, &other.owner, other.epoch)
    }
}

impl Eq for Lease {}

/// A lease of one owner as the database sees it.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct OwnedLease {
    /// What it is for.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// Its term.
    #[diesel(sql_type = BigInt)]
    pub epoch: i64,
    /// Seconds until somebody else may take it; negative if somebody may already.
    #[diesel(sql_type = Double)]
    pub remaining_seconds: f64,
}

/// A lease of anybody.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct LeaseState {
    /// What it is for.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// Who holds it, or held it last and fell silent.
    #[diesel(sql_type = Nullable<Text>)]
    pub owner: Option<String>,
    /// Its term.
    #[diesel(sql_type = BigInt)]
    pub epoch: i64,
    /// Seconds until somebody else may take it; negative if somebody may already.
    #[diesel(sql_type = Nullable<Double>)]
    pub remaining_seconds: Option<f64>,
}

#[derive(QueryableByName)]
struct Revoked {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Nullable<Text>)]
    owner: Option<String>,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
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

/// Makes the rows that are missing; nobody holds them yet.
pub async fn create(connection: &mut Connection, names: &[String]) -> Result<(), RepositoryError> {
    statement("INSERT INTO leases (name) SELECT unnest(?) ON CONFLICT DO NOTHING")
        .bind::<Array<Text>, _>(names)
        .execute(connection)
        .await?;
    Ok(())
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

/// Who holds one of `names` and has not fallen silent, sorted. The leases stay locked until the transaction ends, so
/// nobody takes one of them before that; only a lease whose row is missing (see [`create`]) can still be made and taken.
pub async fn lock_and_ask(
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

/// Takes `member` out of `group`, so that the others share anew at once.
pub async fn leave(connection: &mut Connection, group: &str, member: &str) -> Result<(), RepositoryError> {
    statement("DELETE FROM lease_members WHERE lease_group = ? AND member = ?")
        .bind::<Text, _>(group)
        .bind::<Text, _>(member)
        .execute(connection)
        .await?;
    Ok(())
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
