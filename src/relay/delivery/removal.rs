//! Removes acknowledged rows from the outbox. Retries until it succeeds or the leases are lost, because rows that stay are
//! published again.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{sleep, timeout};

use super::{DATABASE_TIMEOUT, Relay, RelayError};
use crate::{
    relay::{floors::SettledLanes, lanes::lane_of_lease},
    repository::{
        RepositoryError,
        outbox::{self, OutboxRowId, RejectedRow},
    },
    runtime::{Backoff, Lease},
};

const INTERVAL_MIN: Duration = Duration::from_millis(50);
const INTERVAL_MAX: Duration = Duration::from_secs(2);

/// Rows to remove.
pub(super) struct Removal {
    /// Rows that the broker has stored.
    pub(super) published: Vec<OutboxRowId>,
    /// Rows to store as dead letters.
    pub(super) dead_lettered: Vec<RejectedRow>,
    pub(super) settled: SettledLanes,
}

impl Removal {
    fn lanes(&self) -> impl Iterator<Item = i16> {
        let of_dead_lettered = self.dead_lettered.iter().map(|dead_lettered| dead_lettered.row.lane);
        self.published.iter().map(|row| row.lane).chain(of_dead_lettered)
    }

    /// Returns the lanes in which all rows between the first and the last row of the scan are removed. One range suffices
    /// for each lane.
    fn whole_lanes(&self) -> BTreeSet<i16> {
        self.settled.removed_whole(self.lanes())
    }

    /// Returns the leases of the lanes of these rows.
    fn leases(&self, leases: &[Lease]) -> Vec<Lease> {
        let lanes: BTreeSet<i16> = self.lanes().collect();
        let needed = |lease: &&Lease| lane_of_lease(lease).is_some_and(|lane| lanes.contains(&lane));
        leases.iter().filter(needed).cloned().collect()
    }
}

impl Relay {
    /// Removes the rows, and retries until it succeeds. If a lease is lost, the rows of its lane are left to the new owner,
    /// which publishes them again.
    pub(super) async fn remove(&self, mut removal: Removal, leases: &[Lease]) {
        let mut leases = removal.leases(leases);
        let mut whole = removal.whole_lanes();
        let mut outage = self.outages.log_of("removing published rows from the outbox");
        let mut backoff = Backoff::new(INTERVAL_MIN, INTERVAL_MAX);
        while !leases.is_empty() {
            let removing = self.try_remove(&leases, &removal, &whole);
            let outcome = timeout(DATABASE_TIMEOUT, removing).await.unwrap_or(Err(RelayError::NoAnswer));
            // The failed attempt may have been committed. Then the ranges are no longer exact.
            whole.clear();
            match outcome {
                Ok(()) => {
                    count_dead_lettered(&removal.dead_lettered);
                    outage.succeeded();
                    return;
                }
                Err(RelayError::Repository(RepositoryError::LeaseLost(name))) => {
                    tracing::info!(
                        lease = name,
                        "lost a lease while publishing; the new owner publishes the rows again"
                    );
                    leases.retain(|lease| lease.name != name);
                    let kept: BTreeSet<i16> = leases.iter().filter_map(lane_of_lease).collect();
                    removal.published.retain(|row| kept.contains(&row.lane));
                    removal.dead_lettered.retain(|dead_lettered| kept.contains(&dead_lettered.row.lane));
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
        // An id that is settled on one server may not be settled on another.
        let nothing = BTreeSet::new();
        let whole = if self.floors.is_current(&removal.settled) { whole } else { &nothing };
        outbox::remove(&mut session.connection, leases, &removal.published, whole, &removal.dead_lettered)
            .await?;
        self.connections.give_back(session);
        Ok(())
    }
}

fn count_dead_lettered(dead_lettered: &[RejectedRow]) {
    for dead_lettered in dead_lettered {
        metrics::counter!("ledger_dead_letters_total", "reason" => dead_lettered.reason).increment(1);
        let (topic, event) = (&dead_lettered.row.topic, dead_lettered.row.event_id);
        tracing::warn!(%topic, %event, reason = dead_lettered.reason, "stored a record as a dead letter");
    }
}
