//! Removing what was acknowledged: tried until it succeeds or the leases are lost, for rows that stay are published
//! again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{DATABASE_TIMEOUT, Relay, RelayError};
use crate::{
    relay::{floors::Settled, lanes::lane_of_lease},
    repository::{
        RepositoryError,
        outbox::{self, OutboxRowId, RejectedRow},
    },
    runtime::{Backoff, Lease, OutageLog},
};

const INTERVAL_MIN: Duration = Duration::from_millis(50);
const INTERVAL_MAX: Duration = Duration::from_secs(2);

/// What is to be removed.
pub(super) struct Removal {
    /// What the broker has.
    pub(super) published: Vec<OutboxRowId>,
    /// To be kept as dead letters.
    pub(super) parked: Vec<RejectedRow>,
    pub(super) settled: Settled,
}

impl Removal {
    fn lanes(&self) -> impl Iterator<Item = i16> {
        let of_parked = self.parked.iter().map(|parked| parked.row.lane);
        self.published.iter().map(|row| row.lane).chain(of_parked)
    }

    /// The lanes of which everything goes that is between the first and the last row: one span says it all.
    fn whole_lanes(&self) -> BTreeSet<i16> {
        let mut counts: BTreeMap<i16, usize> = BTreeMap::new();
        for lane in self.lanes() {
            *counts.entry(lane).or_default() += 1;
        }
        let is_whole = |(lane, count): &(i16, usize)| self.settled.lanes.get(lane) == Some(count);
        counts.into_iter().filter(is_whole).map(|(lane, _)| lane).collect()
    }

    /// The leases that these rows need.
    fn leases(&self, leases: &[Lease]) -> Vec<Lease> {
        let lanes: BTreeSet<i16> = self.lanes().collect();
        let needed = |lease: &&Lease| lane_of_lease(lease).is_some_and(|lane| lanes.contains(&lane));
        leases.iter().filter(needed).cloned().collect()
    }
}

impl Relay {
    /// Tries until it is done. A lane whose lease is lost is its new owner's, who publishes the rows again.
    pub(super) async fn remove(&self, mut removal: Removal, leases: &[Lease]) {
        let mut leases = removal.leases(leases);
        let mut whole = removal.whole_lanes();
        let mut outage = OutageLog::new("removing published rows from the outbox");
        let mut backoff = Backoff::new(INTERVAL_MIN, INTERVAL_MAX);
        while !leases.is_empty() {
            let removing = self.try_remove(&leases, &removal, &whole);
            let outcome = timeout(DATABASE_TIMEOUT, removing).await.unwrap_or(Err(RelayError::Silent));
            // It may have been done after all, and then the rest is no whole any more.
            whole.clear();
            match outcome {
                Ok(()) => {
                    count_parked(&removal.parked);
                    outage.succeeded();
                    return;
                }
                Err(RelayError::Repository(RepositoryError::LeaseLost(name))) => {
                    tracing::info!(lease = name, "lost while publishing: its new owner publishes again");
                    leases.retain(|lease| lease.name != name);
                    let kept: BTreeSet<i16> = leases.iter().filter_map(lane_of_lease).collect();
                    removal.published.retain(|row| kept.contains(&row.lane));
                    removal.parked.retain(|parked| kept.contains(&parked.row.lane));
                }
                Err(error) => {
                    outage.failed(&error);
                    sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    async fn try_remove(
        &self,
        leases: &[Lease],
        removal: &Removal,
        whole: &BTreeSet<i16>,
    ) -> Result<(), RelayError> {
        let mut session = self.session().await?;
        // What was settled on one server need not be on another.
        let nothing = BTreeSet::new();
        let whole = if self.floors.still_hold(&removal.settled) { whole } else { &nothing };
        outbox::remove(&mut session.connection, leases, &removal.published, whole, &removal.parked).await?;
        self.sessions.give_back(session);
        Ok(())
    }
}

fn count_parked(parked: &[RejectedRow]) {
    for parked in parked {
        metrics::counter!("ledger_dead_letters_total", "reason" => parked.reason).increment(1);
        let (topic, event) = (&parked.row.topic, parked.row.event_id);
        tracing::warn!(%topic, %event, reason = parked.reason, "kept as a dead letter");
    }
}
