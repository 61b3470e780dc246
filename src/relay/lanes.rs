//! Which lanes to look at next.
//!
//! An outbox that is nearly empty is looked at whole: one query. One that is behind is taken in shares, so that one
//! share is read while others are published and removed. A share holds the lanes of equal remainder, since the same
//! hash gives lane and partition: shares then meet on few partitions, or on none where their number is a multiple of
//! the shares. A lane is in one batch at a time, which is what keeps its order.

use std::collections::BTreeSet;

use crate::{event::LANES, runtime::Lease};

const PREFIX: &str = "relay/lane/";
const SHARES: i16 = 4;

/// The leases that relays share.
pub(super) fn lease_names() -> Vec<String> {
    (0..LANES).map(lease_name).collect()
}

/// The lease of a lane.
pub fn lease_name(lane: i16) -> String {
    format!("{PREFIX}{lane}")
}

/// The lane that a lease is for.
pub(super) fn lane_of_lease(lease: &Lease) -> Option<i16> {
    lease.name.strip_prefix(PREFIX)?.parse().ok()
}

/// Lanes to look at together.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) leases: Vec<Lease>,
}

impl Share {
    fn lanes(&self) -> impl Iterator<Item = i16> {
        self.leases.iter().filter_map(lane_of_lease)
    }
}

/// What is taken, and how far behind we are.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    taken: BTreeSet<i16>,
    behind: bool,
    next: i16,
    /// Shares in a row that had nothing.
    empty: i16,
}

impl Lanes {
    /// The lanes to look at now, of those that are held and free.
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

    /// Rows of this share are being delivered.
    pub(super) fn take(&mut self, share: &Share, full: bool) {
        self.taken.extend(share.lanes());
        self.behind = self.behind || full;
        self.empty = 0;
    }

    /// Nothing was there in the share looked at last. Answers whether that goes for all that are free; if not, the
    /// next share is to be looked at.
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

    /// The share's rows are delivered, or were tried.
    pub(super) fn give_back(&mut self, share: &Share) {
        for lane in share.lanes() {
            self.taken.remove(&lane);
        }
    }
}
