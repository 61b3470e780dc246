//! Chooses the lanes to scan next.
//!
//! - While the outbox is nearly empty, one query scans all lanes.
//! - While the relay is behind, the lanes are scanned in shares, so that one share is read while others are published
//!   and removed. A share holds the lanes whose numbers have the same remainder modulo the number of shares. Lane and
//!   partition come from the same hash, so two shares have few partitions in common, and none if the number of
//!   partitions is a multiple of the number of shares.
//! - A lane is in at most one batch at a time. This keeps its order.

use std::collections::BTreeSet;

use crate::{event::LANES, runtime::Lease};

const PREFIX: &str = "relay/lane/";
const SHARES: i16 = 4;

/// Returns the names of all lane leases.
pub(super) fn lease_names() -> Vec<String> {
    (0..LANES).map(lease_name).collect()
}

/// Returns the name of a lane's lease.
pub fn lease_name(lane: i16) -> String {
    format!("{PREFIX}{lane}")
}

/// Returns the lane of a lease.
pub(super) fn lane_of_lease(lease: &Lease) -> Option<i16> {
    lease.name.strip_prefix(PREFIX)?.parse().ok()
}

/// Lanes to scan together.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) leases: Vec<Lease>,
}

impl Share {
    fn lanes(&self) -> impl Iterator<Item = i16> {
        self.leases.iter().filter_map(lane_of_lease)
    }
}

/// The lanes that are being delivered, and whether the relay is behind.
#[derive(Debug, Default)]
pub(super) struct LaneSchedule {
    taken: BTreeSet<i16>,
    behind: bool,
    next: i16,
    /// The number of consecutive shares without rows.
    empty: i16,
}

impl LaneSchedule {
    /// Returns the lanes to scan now: held by lease and not being delivered.
    pub(super) fn next_share(&mut self, held: &[Lease]) -> Option<Share> {
        let free = |lease: &&Lease| lane_of_lease(lease).is_some_and(|lane| !self.taken.contains(&lane));
        if !self.behind {
            let leases: Vec<Lease> = held.iter().filter(free).cloned().collect();
            return (!leases.is_empty()).then_some(Share { leases });
        }
        for _ in 0..SHARES {
            let remainder = self.next;
            self.next = (self.next + 1) % SHARES;
            let of_share =
                |lease: &&Lease| lane_of_lease(lease).is_some_and(|lane| lane % SHARES == remainder);
            let leases: Vec<Lease> = held.iter().filter(free).filter(of_share).cloned().collect();
            if !leases.is_empty() {
                return Some(Share { leases });
            }
        }
        None
    }

    /// Records that rows of this share are being delivered.
    pub(super) fn take(&mut self, share: &Share, full: bool) {
        self.taken.extend(share.lanes());
        self.behind = self.behind || full;
        self.empty = 0;
    }

    /// Records that the last scan found no rows. Returns whether the caller may wait; if not, it should scan the next
    /// share.
    pub(super) fn found_nothing(&mut self) -> bool {
        if !self.behind {
            return true;
        }
        self.empty += 1;
        if self.empty >= SHARES {
            self.behind = false;
        }
        false
    }

    /// Records that the delivery of this share has ended, successfully or not.
    pub(super) fn give_back(&mut self, share: &Share) {
        for lane in share.lanes() {
            self.taken.remove(&lane);
        }
    }
}
