//! The types of a lease.

use std::{sync::Arc, time::Duration};

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Double, Nullable, Text},
};

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
    pub(super) ttl: Duration,
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

pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
