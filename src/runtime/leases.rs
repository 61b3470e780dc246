//! Membership in a group of processes that share leases: the lanes of the outbox, or the partitions of a topic.
//!
//! ```text
//! heartbeat ─▶ renew ─▶ fair share ─┬▶ too many: hide the surplus, wait until it is unused, release it
//!     ▲                             └▶ too few:  take free or expired leases
//!     └──── every ttl/4 or 0.5 s ◀──┘
//! ```
//!
//! Guarantees:
//!
//! - [`LeaseGroup::held`] returns a lease only while it cannot have expired. The time counts from the start of the
//!   attempt that renewed it, so during an outage of the database this member loses its leases before another member
//!   can take them.
//! - A surplus lease, and every lease at a stop, is released when no clone of it is left, or after a limited wait.
//! - If the leases cannot be shared evenly, the members with the first names get one more.
//!
//! Deliberately absent: safety without the database. Clocks stop and processes freeze. A process that lost its lease
//! cannot write, because the working transaction calls [`crate::repository::leases::hold`].

mod fair_share;

use std::time::{Duration, Instant};

use metrics::Gauge;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::task::AbortOnDropHandle;

use super::{Backoff, Context, DatabaseClock, HealthPart, Outages, Stop, as_value};
use crate::{
    config::Database,
    repository::{
        self, Connection, RepositoryError,
        leases::{self, OwnedLease},
    },
};

pub use self::fair_share::fair_share;
pub use crate::repository::leases::Lease;

/// The longest interval between heartbeats. Even with a long ttl, another member takes a released lease within a
/// second.
const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_millis(500);
const RETRY_INTERVAL_MIN: Duration = Duration::from_millis(50);
/// How long work under a lease may take to end after a stop. Then the lease is released anyway.
const STOP_GRACE: Duration = Duration::from_secs(3);
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
const IN_USE_CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// Membership in one group. It ends with [`LeaseGroup::leave`], when it is dropped, or when the context stops.
pub struct LeaseGroup {
    held: watch::Receiver<Vec<HeldLease>>,
    stop: Stop,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct HeldLease {
    lease: Lease,
    trusted_until: Instant,
}

impl LeaseGroup {
    /// Joins `group` in the background, on a connection of its own. `names` are the leases that the group shares; every
    /// member must pass the same names. The name of the group begins with the role: `relay`, `consume-risk/risk`.
    pub fn join(context: &Context, group: &str, names: Vec<String>, ttl: Duration) -> Self {
        Self::join_in_generation(context, None, group, names, ttl)
    }

    /// Joins `group` as [`LeaseGroup::join`] does, and takes leases only while the recorded broker is of this generation.
    pub fn join_in_generation(
        context: &Context,
        generation: Option<i64>,
        group: &str,
        names: Vec<String>,
        ttl: Duration,
    ) -> Self {
        let (published, held) = watch::channel(Vec::new());
        let stop = context.stop.child();
        let metrics = LeaseMetrics::new(group);
        metrics.shared.set(as_value(names.len()));
        let member = Member {
            metrics,
            health: context.health.part(format!("renewing the leases of {group}")),
            database: context.config.database.clone(),
            clock: context.clock.clone(),
            outages: context.outages.clone(),
            owner: context.instance.to_string(),
            group: group.to_owned(),
            generation,
            names,
            ttl,
            connection: None,
            connecting: None,
            created: false,
            members: 0,
            published,
            surplus: Vec::new(),
        };
        let task = tokio::spawn(member.run(stop.clone()));
        Self { held, stop, task }
    }

    /// Returns the leases that this member may work under now, sorted by name. Drop the clones when the work is done.
    pub fn held(&self) -> Vec<Lease> {
        let now = Instant::now();
        let held = self.held.borrow();
        held.iter().filter(|held| held.trusted_until > now).map(|held| held.lease.clone()).collect()
    }

    /// Waits until this member has won or lost a lease since the last call.
    pub async fn changed(&mut self) {
        if self.held.changed().await.is_err() {
            // The task has ended, so nothing changes any more. The caller waits for its own stop.
            std::future::pending::<()>().await;
        }
    }

    /// Releases all leases and leaves the group. Takes a few seconds at most.
    pub async fn leave(mut self) {
        self.stop.request();
        if let Err(error) = (&mut self.task).await {
            tracing::debug!(%error, "the lease task failed");
        }
    }
}

impl Drop for LeaseGroup {
    fn drop(&mut self) {
        self.stop.request();
    }
}

/// The gauges of one group. The name of the group begins with the role; the rest is the name of the consumer group.
struct LeaseMetrics {
    held: Gauge,
    shared: Gauge,
}

impl LeaseMetrics {
    fn new(group: &str) -> Self {
        let (role, consumer_group) =
            group.split_once('/').map_or((group, None), |(role, rest)| (role, Some(rest)));
        let mut labels = vec![("role", role.to_owned())];
        labels.extend(consumer_group.map(|name| ("group", name.to_owned())));
        Self {
            held: metrics::gauge!("ledger_leases_held", &labels),
            shared: metrics::gauge!("ledger_leases_shared", &labels),
        }
    }
}

struct Member {
    metrics: LeaseMetrics,
    health: HealthPart,
    database: Database,
    clock: DatabaseClock,
    outages: Outages,
    owner: String,
    group: String,
    /// The generation of the recorded broker, for work with the broker.
    generation: Option<i64>,
    names: Vec<String>,
    ttl: Duration,
    connection: Option<Connection>,
    /// A connection that is being opened. It has a time limit of its own, and with several hosts in the URL it may take
    /// longer than one attempt. An attempt that times out leaves it to the next attempt.
    connecting: Option<AbortOnDropHandle<Result<Connection, RepositoryError>>>,
    created: bool,
    members: usize,
    published: watch::Sender<Vec<HeldLease>>,
    /// Surplus leases that are still in use, each with the time at which it is released anyway.
    surplus: Vec<(Lease, Instant)>,
}

impl Member {
    async fn run(mut self, stop: Stop) {
        let interval = (self.ttl / 4).min(HEARTBEAT_INTERVAL_MAX);
        let mut backoff = Backoff::new(RETRY_INTERVAL_MIN.min(interval), interval);
        let mut outage = self.outages.log_of(format!("renewing the leases of {}", self.group));
        while !stop.is_requested() {
            let attempt = tokio::select! {
                attempt = self.bounded_attempt() => attempt,
                () = stop.requested() => break,
            };
            self.health.set_failing(attempt.is_err());
            if let Err(error) = attempt {
                outage.failed(&error);
                self.forget_expired();
                backoff.wait(&stop).await;
                continue;
            }
            outage.succeeded();
            backoff.reset();
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = stop.requested() => {}
            }
        }
        self.end().await;
    }

    /// Makes one attempt with a time limit. If it fails or times out, its connection is closed.
    async fn bounded_attempt(&mut self) -> Result<(), String> {
        match tokio::time::timeout(self.ttl / 3, self.run_once()).await {
            Ok(Ok(connection)) => {
                self.connection = Some(connection);
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer from the database within {:?}", self.ttl / 3)),
        }
    }

    async fn connected(&mut self) -> Result<Connection, RepositoryError> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let connecting = self.connecting.get_or_insert_with(|| {
            let database = self.database.clone();
            AbortOnDropHandle::new(tokio::spawn(
                async move { repository::connect(&database, "leases").await },
            ))
        });
        let outcome = connecting.await;
        self.connecting = None;
        outcome
            .unwrap_or_else(|error| Err(RepositoryError::NotConnected(format!("connecting failed: {error}"))))
    }

    async fn run_once(&mut self) -> Result<Connection, RepositoryError> {
        let mut connection = self.connected().await?;
        let connection_ref = &mut connection;
        if !self.created {
            leases::create(connection_ref, &self.names).await?;
            self.created = true;
        }
        let heartbeat = leases::heartbeat(connection_ref, &self.group, &self.owner, self.ttl).await?;
        self.clock.observe(heartbeat.server_time);
        let members = heartbeat.members;
        let started = Instant::now();
        let owned = leases::renew(connection_ref, &self.owner, &self.names, self.ttl).await?;
        let mut held = self.merge(owned, started);
        let share = fair_share(self.names.len(), &members, &self.owner);
        self.separate_surplus(&mut held, share);
        if held.len() < share {
            let started = Instant::now();
            let wanted = share - held.len();
            let (generation, owner, names) = (self.generation, &self.owner, &self.names);
            let taken =
                leases::take_in_generation(connection_ref, generation, owner, names, wanted, self.ttl)
                    .await?;
            held.extend(taken.into_iter().map(|taken| self.held_lease(taken, started)));
        }
        self.publish(held, members.len());
        self.release_surplus(connection_ref).await?;
        Ok(connection)
    }

    /// Returns the leases that the database says this member owns, without the surplus. Known leases stay the same
    /// objects, so that their clones are counted.
    fn merge(&mut self, owned: Vec<OwnedLease>, started: Instant) -> Vec<HeldLease> {
        self.surplus.retain(|(lease, _)| owned.iter().any(|owned| is_same(lease, owned)));
        let known = self.published.borrow().clone();
        let mut held = Vec::with_capacity(owned.len());
        for owned in owned {
            if owned.remaining_seconds <= 0.0 || self.surplus.iter().any(|(lease, _)| is_same(lease, &owned))
            {
                continue;
            }
            let mut lease = self.held_lease(owned, started);
            if let Some(known) = known.iter().find(|known| known.lease == lease.lease) {
                lease.lease = known.lease.clone();
            }
            held.push(lease);
        }
        held
    }

    /// Returns the lease with the time until which it is trusted. The database measured the remaining time after `started`.
    /// A tenth of the ttl is subtracted, because the two clocks may run at different speeds.
    fn held_lease(&self, owned: OwnedLease, started: Instant) -> HeldLease {
        let remaining =
            Duration::try_from_secs_f64(owned.remaining_seconds).unwrap_or_default().min(self.ttl);
        HeldLease {
            lease: Lease::new(owned.name, self.owner.clone(), owned.epoch, self.ttl),
            trusted_until: started + remaining.saturating_sub(self.ttl / 10),
        }
    }

    fn separate_surplus(&mut self, held: &mut Vec<HeldLease>, share: usize) {
        let released_at = Instant::now() + self.ttl;
        while held.len() > share {
            if let Some(last) = held.pop() {
                self.surplus.push((last.lease, released_at));
            }
        }
    }

    /// Releases the surplus. Runs after publishing, so that every remaining clone of a surplus lease is in use.
    async fn release_surplus(&mut self, connection: &mut Connection) -> Result<(), RepositoryError> {
        let deadline = tokio::time::Instant::now() + self.ttl / 8;
        while self.surplus.iter().any(|(lease, _)| lease.is_in_use()) {
            if tokio::time::Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(IN_USE_CHECK_INTERVAL).await;
        }
        let now = Instant::now();
        let free = |(lease, released_at): &(Lease, Instant)| !lease.is_in_use() || *released_at <= now;
        let names: Vec<String> = self
            .surplus
            .iter()
            .filter(|surplus| free(surplus))
            .map(|(lease, _)| lease.name.clone())
            .collect();
        if !names.is_empty() {
            leases::release(connection, &self.owner, &names).await?;
            self.surplus.retain(|(lease, _)| !names.contains(&lease.name));
        }
        Ok(())
    }

    /// Publishes the held leases. Wakes [`LeaseGroup::changed`] only if a lease was won or lost.
    fn publish(&mut self, mut held: Vec<HeldLease>, members: usize) {
        held.sort_by(|a, b| a.lease.name.cmp(&b.lease.name));
        let count = held.len();
        let changed = self.published.send_if_modified(|published| {
            let same = published.len() == held.len()
                && published.iter().zip(&held).all(|(before, after)| before.lease == after.lease);
            *published = held;
            !same
        });
        let joined_or_left = std::mem::replace(&mut self.members, members) != members;
        if changed || joined_or_left {
            tracing::info!(
                group = self.group,
                held = count,
                of = self.names.len(),
                members,
                "the share of leases changed"
            );
        }
        self.metrics.held.set(as_value(count));
    }

    fn forget_expired(&mut self) {
        let now = Instant::now();
        let mut held = self.published.borrow().clone();
        held.retain(|held| held.trusted_until > now);
        let members = self.members;
        self.publish(held, members);
    }

    /// Waits for work in progress, releases all leases and leaves the group, with a time limit for each step. If a step
    /// fails, the leases expire.
    async fn end(mut self) {
        let held = self.published.borrow().clone();
        self.publish(Vec::new(), 0);
        let mut leases: Vec<Lease> = held.into_iter().map(|held| held.lease).collect();
        leases.extend(std::mem::take(&mut self.surplus).into_iter().map(|(lease, _)| lease));
        let released_at = tokio::time::Instant::now() + STOP_GRACE;
        while leases.iter().any(Lease::is_in_use) && tokio::time::Instant::now() < released_at {
            tokio::time::sleep(IN_USE_CHECK_INTERVAL).await;
        }
        let released = tokio::time::timeout(RELEASE_TIMEOUT, self.release_all()).await;
        match released {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(group = self.group, %error, "leases are left to expire"),
            Err(_) => tracing::warn!(group = self.group, "leases are left to expire: no answer in time"),
        }
    }

    async fn release_all(&mut self) -> Result<(), RepositoryError> {
        let mut connection = self.connected().await?;
        leases::release(&mut connection, &self.owner, &self.names).await?;
        leases::leave(&mut connection, &self.group, &self.owner).await
    }
}

fn is_same(lease: &Lease, owned: &OwnedLease) -> bool {
    lease.name == owned.name && lease.epoch == owned.epoch
}
