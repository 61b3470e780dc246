//! A member of a group that shares leases: relay lanes, topic partitions, the single `aggregate`.
//!
//! ```text
//! heartbeat ─▶ renew ─▶ fair share ─┬▶ too many: stop handing out, wait until unused, release
//!     ▲                             └▶ too few:  take what is free or expired
//!     └──────── every ttl/4 ◀───────┘
//! ```
//!
//! Guarantees: a lease is handed out only while it cannot have expired, counted from the start of the attempt that
//! renewed it; so with the database gone, all are lost here before anybody can take them. A surplus, and everything
//! at stop, is released as soon as no clone of the lease is left, or after a bounded wait. The members agree on who
//! gets the odd one by the order of their names. Deliberately absent: being safe by itself. Clocks stop, processes
//! freeze; what makes a zombie harmless is [`crate::repository::leases::hold`] in the transaction that does the work.

use std::time::{Duration, Instant};

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::task::AbortOnDropHandle;

use super::{Backoff, Context, OutageLog, Stop};
use crate::{
    config::Database,
    repository::{
        self, Connection, RepositoryError,
        leases::{self, OwnedLease},
    },
};

pub use crate::repository::leases::Lease;

/// Signs of life come this often at least, so that what a member gives back is taken within a second also where the ttl
/// is long.
const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_millis(500);
const RETRY_INTERVAL_MIN: Duration = Duration::from_millis(50);
/// How long work under a lease may take to end after a stop before the lease is released all the same.
const STOP_GRACE: Duration = Duration::from_secs(3);
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
const IN_USE_CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// Membership of one group; ends when dropped, when the context stops, or by [`LeaseGroup::leave`].
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
    /// Joins in the background, on a connection of its own. `names` are the leases that the members of `group` share;
    /// every member must name the same ones. `group` begins with the role: `relay`, `consume-risk/risk`.
    pub fn join(context: &Context, group: &str, names: Vec<String>, ttl: Duration) -> Self {
        let (published, held) = watch::channel(Vec::new());
        let stop = context.stop.child();
        let member = Member {
            database: context.config.database.clone(),
            owner: context.instance.to_string(),
            group: group.to_owned(),
            names,
            ttl,
            connection: None,
            connecting: None,
            created: false,
            members: 0,
            published,
            giving_up: Vec::new(),
        };
        let task = tokio::spawn(member.run(stop.clone()));
        Self { held, stop, task }
    }

    /// What this member may work under now, sorted by name. Drop the clones as soon as the work is done.
    pub fn held(&self) -> Vec<Lease> {
        let now = Instant::now();
        let held = self.held.borrow();
        held.iter().filter(|held| held.trusted_until > now).map(|held| held.lease.clone()).collect()
    }

    /// Returns once a lease was won or lost since the last call.
    pub async fn changed(&mut self) {
        if self.held.changed().await.is_err() {
            // The task has ended, nothing will change any more: let the caller meet its own stop.
            std::future::pending::<()>().await;
        }
    }

    /// Gives everything up and returns once that is done; takes a few seconds at most.
    pub async fn leave(mut self) {
        self.stop.request();
        if let Err(error) = (&mut self.task).await {
            tracing::debug!(%error, "the lease task did not end by itself");
        }
    }
}

impl Drop for LeaseGroup {
    fn drop(&mut self) {
        self.stop.request();
    }
}

struct Member {
    database: Database,
    owner: String,
    group: String,
    names: Vec<String>,
    ttl: Duration,
    connection: Option<Connection>,
    /// A new connection in the making. It has a time limit of its own, and where a URL names several hosts it needs more
    /// time than an attempt has; so an attempt that waits in vain leaves it to the next one.
    connecting: Option<AbortOnDropHandle<Result<Connection, RepositoryError>>>,
    created: bool,
    members: usize,
    published: watch::Sender<Vec<HeldLease>>,
    /// Surplus that is still being worked under, with the moment when patience ends.
    giving_up: Vec<(Lease, Instant)>,
}

impl Member {
    async fn run(mut self, stop: Stop) {
        let interval = (self.ttl / 4).min(HEARTBEAT_INTERVAL_MAX);
        let mut backoff = Backoff::new(RETRY_INTERVAL_MIN.min(interval), interval);
        let mut outage = OutageLog::new(format!("renewing the leases of {}", self.group));
        while !stop.is_requested() {
            let attempt = tokio::select! {
                attempt = self.bounded_attempt() => attempt,
                () = stop.requested() => break,
            };
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

    /// One attempt that leaves no half-used connection behind, whether it fails or takes too long.
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
        outcome.unwrap_or_else(|error| {
            Err(RepositoryError::Connect { address: "database.url".into(), detail: error.to_string() })
        })
    }

    async fn run_once(&mut self) -> Result<Connection, RepositoryError> {
        let mut connection = self.connected().await?;
        let connection_ref = &mut connection;
        if !self.created {
            leases::create(connection_ref, &self.names).await?;
            self.created = true;
        }
        let members = leases::heartbeat(connection_ref, &self.group, &self.owner, self.ttl).await?;
        let started = Instant::now();
        let owned = leases::renew(connection_ref, &self.owner, &self.names, self.ttl).await?;
        let mut held = self.merge(owned, started);
        let share = fair_share(self.names.len(), &members, &self.owner);
        self.set_surplus_aside(&mut held, share);
        if held.len() < share {
            let started = Instant::now();
            let wanted = share - held.len();
            let taken = leases::take(connection_ref, &self.owner, &self.names, wanted, self.ttl).await?;
            held.extend(taken.into_iter().map(|taken| self.held_lease(taken, started)));
        }
        self.publish(held, members.len());
        self.release_surplus(connection_ref).await?;
        Ok(connection)
    }

    /// What the database says is ours, without what is being given up. Known leases stay the same objects, so that
    /// their clones are seen.
    fn merge(&mut self, owned: Vec<OwnedLease>, started: Instant) -> Vec<HeldLease> {
        self.giving_up.retain(|(lease, _)| owned.iter().any(|owned| is_same(lease, owned)));
        let known = self.published.borrow().clone();
        let mut held = Vec::with_capacity(owned.len());
        for owned in owned {
            if owned.remaining_seconds <= 0.0
                || self.giving_up.iter().any(|(lease, _)| is_same(lease, &owned))
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

    /// The database counted the rest of the term at some moment after `started`. A tenth of the ttl is kept back for
    /// clocks that do not run alike.
    fn held_lease(&self, owned: OwnedLease, started: Instant) -> HeldLease {
        let remaining =
            Duration::try_from_secs_f64(owned.remaining_seconds).unwrap_or_default().min(self.ttl);
        HeldLease {
            lease: Lease::new(owned.name, self.owner.clone(), owned.epoch, self.ttl),
            trusted_until: started + remaining.saturating_sub(self.ttl / 10),
        }
    }

    fn set_surplus_aside(&mut self, held: &mut Vec<HeldLease>, share: usize) {
        let patience_ends = Instant::now() + self.ttl;
        while held.len() > share {
            if let Some(surplus) = held.pop() {
                self.giving_up.push((surplus.lease, patience_ends));
            }
        }
    }

    /// Runs after publishing, so that the only clones of a surplus lease are the ones in use.
    async fn release_surplus(&mut self, connection: &mut Connection) -> Result<(), RepositoryError> {
        let deadline = tokio::time::Instant::now() + self.ttl / 8;
        while self.giving_up.iter().any(|(lease, _)| lease.is_in_use()) {
            if tokio::time::Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(IN_USE_CHECK_INTERVAL).await;
        }
        let now = Instant::now();
        let free = |(lease, patience_ends): &(Lease, Instant)| !lease.is_in_use() || *patience_ends <= now;
        let names: Vec<String> = self
            .giving_up
            .iter()
            .filter(|surplus| free(surplus))
            .map(|(lease, _)| lease.name.clone())
            .collect();
        if !names.is_empty() {
            leases::release(connection, &self.owner, &names).await?;
            self.giving_up.retain(|(lease, _)| !names.contains(&lease.name));
        }
        Ok(())
    }

    /// Shows what is held; wakes who waits only if a lease was won or lost.
    fn publish(&mut self, mut held: Vec<HeldLease>, members: usize) {
        held.sort_by(|a, b| a.lease.name.cmp(&b.lease.name));
        let count = held.len();
        let changed = self.published.send_if_modified(|published| {
            let same = published.len() == held.len()
                && published.iter().zip(&held).all(|(before, after)| before.lease == after.lease);
            *published = held;
            !same
        });
        if changed || std::mem::replace(&mut self.members, members) != members {
            tracing::info!(group = self.group, held = count, of = self.names.len(), members, "leases");
        }
        metrics::gauge!("ledger_leases_held", "role" => self.role())
            .set(u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn role(&self) -> String {
        self.group.split('/').next().unwrap_or_default().to_owned()
    }

    fn forget_expired(&mut self) {
        let now = Instant::now();
        let mut held = self.published.borrow().clone();
        held.retain(|held| held.trusted_until > now);
        let members = self.members;
        self.publish(held, members);
    }

    /// Waits for work in progress, releases all and leaves, each within a bound. Where that fails the ttl does it.
    async fn end(mut self) {
        let held = self.published.borrow().clone();
        self.publish(Vec::new(), 0);
        let mut leases: Vec<Lease> = held.into_iter().map(|held| held.lease).collect();
        leases.extend(std::mem::take(&mut self.giving_up).into_iter().map(|(lease, _)| lease));
        let patience_ends = tokio::time::Instant::now() + STOP_GRACE;
        while leases.iter().any(Lease::is_in_use) && tokio::time::Instant::now() < patience_ends {
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

/// An equal part each; the first members by name get one more until nothing is left. `members` is sorted.
fn fair_share(names: usize, members: &[String], member: &str) -> usize {
    let count = members.len().max(1);
    let position = members.iter().position(|known| known == member).unwrap_or(count);
    names / count + usize::from(position < names % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_everything() {
        for names in 0..40 {
            for count in 1..7 {
                let members: Vec<String> = (0..count).map(|number| format!("member-{number}")).collect();
                let shares: Vec<usize> =
                    members.iter().map(|member| fair_share(names, &members, member)).collect();
                assert_eq!(shares.iter().sum::<usize>(), names);
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            }
        }
    }

    #[test]
    fn a_member_that_the_others_do_not_see_yet_takes_no_odd_one() {
        assert_eq!(fair_share(5, &["a".into(), "b".into()], "c"), 2);
    }
}
