//! The scan floors as the tasks of the relay share them, and when the drawn ids are read.
//!
//! Removed rows leave dead entries at the front of the index. While a snapshot is older than their removal (a dump, a
//! report, a rebuild of facts), PostgreSQL cannot clean them up. A scan from the start of the index would read all of
//! them each time: with a million, for seconds. So a scan starts at its lane's floor (see [`super::floors`]).
//!
//! All floors are discarded with every new connection, because it may lead to a server with an older state, and when an
//! id was drawn twice (see [`super::floor_check`]).

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::floors::{Assumptions, Floors, ScanStart, SettledLanes};
use crate::repository::outbox::{DrawnIds, OutboxScan};

/// The minimum time between two reads of the last id drawn.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The floors of all lanes that were scanned.
#[derive(Default)]
pub(super) struct ScanFloors(Mutex<State>);

#[derive(Default)]
struct State {
    floors: Floors,
    checked_at: Option<Instant>,
    /// Whether rows were found since the last read of the drawn ids.
    has_news: bool,
}

impl ScanFloors {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the drawn ids should be read again. They are not read while the outbox is idle.
    pub(super) fn are_due(&self) -> bool {
        let state = self.state();
        state.has_news && state.checked_at.is_none_or(|checked_at| checked_at.elapsed() >= CHECK_INTERVAL)
    }

    /// Records the drawn ids. They must have been read after `begin`.
    pub(super) fn settle(&self, begin: &ScanStart, drawn: DrawnIds) {
        let mut state = self.state();
        if state.floors.settle(begin, drawn) {
            state.checked_at = Some(Instant::now());
            state.has_news = false;
        }
    }

    /// Returns what the floors assume at this moment.
    pub(super) fn assumptions(&self) -> Assumptions {
        self.state().floors.assumptions()
    }

    /// Returns where a scan of these lanes starts. Call it before the scan.
    pub(super) fn begin(&self, lanes: &[i16]) -> ScanStart {
        self.state().floors.begin(lanes)
    }

    /// Raises each floor to the first row of the scan, as far as the ids are settled.
    pub(super) fn raise(&self, lanes: &[i16], begin: &ScanStart, scan: &OutboxScan) {
        let mut state = self.state();
        if state.floors.raise(lanes, begin, scan) {
            state.has_news |= !scan.rows.is_empty();
        }
    }

    /// Returns whether no floor was discarded since that scan.
    pub(super) fn is_current(&self, settled: &SettledLanes) -> bool {
        self.state().floors.is_current(settled)
    }

    /// Discards all floors.
    pub(super) fn discard(&self) {
        let mut state = self.state();
        state.floors.discard();
        state.checked_at = None;
        state.has_news = false;
    }
}
