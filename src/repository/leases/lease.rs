//! The types of a lease.

use std::{sync::Arc, time::Duration};

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Double, Nullable, Text},
};

/// The right to do the work that `name` stands for, until another process raises the epoch.
///
/// Clones are the same lease. A lease group does not release a lease while a clone exists outside of the group.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The work, for example `relay/lane/7`.
    pub name: String,
    /// The instance that holds the lease.
    pub owner: String,
    /// A number that rises each time the lease is taken.
    pub epoch: i64,
    pub(super) ttl: Duration,
    in_use: Arc<()>,
}

impl Lease {
    /// Makes a lease from the database's answer. Each extension lasts for `ttl`.
    pub fn new(name: String, owner: String, epoch: i64, ttl: Duration) -> Self {
        Self { name, owner, epoch, ttl, in_use: Arc::new(()) }
    }

    /// Returns whether the lease has other clones.
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

/// A lease that the asking process owns, as the database has it.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct OwnedLease {
    /// The lease's name.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// The epoch.
    #[diesel(sql_type = BigInt)]
    pub epoch: i64,
    /// Seconds until the lease expires; negative after that.
    #[diesel(sql_type = Double)]
    pub remaining_seconds: f64,
}

/// A lease of any owner, as the database has it.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct LeaseState {
    /// The lease's name.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// The owner, also after its lease has expired; None for a lease that was released or never taken.
    #[diesel(sql_type = Nullable<Text>)]
    pub owner: Option<String>,
    /// The epoch.
    #[diesel(sql_type = BigInt)]
    pub epoch: i64,
    /// Seconds until the lease expires; negative after that.
    #[diesel(sql_type = Nullable<Double>)]
    pub remaining_seconds: Option<f64>,
}

pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
