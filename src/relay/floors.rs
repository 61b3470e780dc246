//! Where a look at a lane may begin.
//!
//! Removed rows leave dead entries at the front of the index, and while some snapshot is older than their removal (a
//! dump, a report, a rebuild of facts) nothing may clear them away. A look from the very beginning would walk over all
//! of them each time: with a million, for seconds. So a look begins at its lane's floor, below which there is no row
//! and never will be one.
//!
//! Guarantee: a floor is raised only over ids that are settled, which means that whoever drew them has ended, by a look
//! that began after that; so a row that is committed late is never below it. Two facts make an id settled: a
//! transaction that draws one holds the table's lock from before until it has ended, and everybody who held that lock
//! when the id was known to be drawn does not hold it any more. What was learnt is forgotten with every new connection,
//! which may be to a server that has not seen as much.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::repository::outbox::{DrawnIds, OutboxScan};

/// Between two questions for what has been drawn.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// The floors of all lanes that were looked at.
#[derive(Default)]
pub(super) struct Floors(Mutex<State>);

#[derive(Default)]
struct State {
    lanes: BTreeMap<i16, i64>,
    /// Every id up to this one is settled; 0 while nothing is known.
    settled: i64,
    /// Becomes settled once none of its transactions is open any more.
    next: Option<DrawnIds>,
    asked_at: Option<Instant>,
    /// Rows were found since the last question.
    has_moved: bool,
    forgotten: u64,
}

/// What a look begins with.
pub(super) struct Begin {
    /// In the order of the lanes.
    pub(super) floors: Vec<i64>,
    settled: i64,
    forgotten: u64,
}

/// Lanes that have no rows but those of a look between its first and its last of them, and never will have, with how
/// many those are.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) lanes: BTreeMap<i16, usize>,
    forgotten: u64,
}

impl Begin {
    /// What the look that began so found of settled lanes.
    pub(super) fn settled(&self, look: &OutboxScan) -> Settled {
        let mut lanes: BTreeMap<i16, (usize, i64)> = BTreeMap::new();
        for row in &look.rows {
            let (count, last) = lanes.entry(row.lane).or_default();
            (*count, *last) = (*count + 1, row.id.max(*last));
        }
        let is_settled = |(_, (_, last)): &(i16, (usize, i64))| *last <= self.settled;
        let lanes = lanes.into_iter().filter(is_settled).map(|(lane, (count, _))| (lane, count)).collect();
        Settled { lanes, forgotten: self.forgotten }
    }
}

impl Floors {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is time to ask for what has been drawn; not while nothing happens.
    pub(super) fn are_due(&self) -> bool {
        let state = self.state();
        state.has_moved && state.asked_at.is_none_or(|asked_at| asked_at.elapsed() >= ASK_INTERVAL)
    }

    /// Takes note of the answer to a question that was asked after `begin`.
    pub(super) fn settle(&self, begin: &Begin, drawn: DrawnIds) {
        let mut state = self.state();
        if state.forgotten != begin.forgotten {
            return;
        }
        state.asked_at = Some(Instant::now());
        state.has_moved = false;
        match &state.next {
            Some(next) if next.open.iter().any(|open| drawn.open.contains(open)) => {}
            next => {
                state.settled = next.as_ref().map_or(state.settled, |next| next.last_id.max(state.settled));
                state.next = Some(drawn);
            }
        }
    }

    /// Where a look at these lanes begins; ask for it before the look.
    pub(super) fn begin(&self, lanes: &[i16]) -> Begin {
        let state = self.state();
        let floors = lanes.iter().map(|lane| state.lanes.get(lane).copied().unwrap_or_default()).collect();
        Begin { floors, settled: state.settled, forgotten: state.forgotten }
    }

    /// Raises the floors to what the look found first, as far as that is settled.
    pub(super) fn raise(&self, lanes: &[i16], begin: &Begin, look: &OutboxScan) {
        let mut state = self.state();
        if state.forgotten != begin.forgotten {
            return;
        }
        state.has_moved |= !look.rows.is_empty();
        if begin.settled == 0 {
            return;
        }
        let mut firsts: BTreeMap<i16, i64> = BTreeMap::new();
        for row in &look.rows {
            firsts.entry(row.lane).or_insert(row.id);
        }
        for lane in lanes {
            let first = match firsts.get(lane) {
                Some(first) => *first,
                // It may have been cut off.
                None if look.is_full => continue,
                None => i64::MAX,
            };
            let floor = state.lanes.entry(*lane).or_default();
            *floor = (*floor).max(first.min(begin.settled + 1));
        }
    }

    /// Whether nothing was forgotten since the look that found this.
    pub(super) fn still_hold(&self, settled: &Settled) -> bool {
        self.state().forgotten == settled.forgotten
    }

    /// Begins at the beginning again.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        *state = State { forgotten: state.forgotten + 1, ..State::default() };
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use uuid::Uuid;

    use super::*;
    use crate::repository::outbox::OutboxRow;

    fn drawn(last_id: i64, open: &[&str]) -> DrawnIds {
        DrawnIds { last_id, open: open.iter().map(|name| (*name).to_owned()).collect() }
    }

    fn look(ids: &[i64]) -> OutboxScan {
        let row = |id: &i64| OutboxRow {
            lane: 1,
            id: *id,
            topic: "t".into(),
            key: None,
            value: None,
            event_id: Uuid::nil(),
            event_type: "T".into(),
            created_at: Utc::now(),
            traceparent: None,
            headers: None,
        };
        OutboxScan { rows: ids.iter().map(row).collect(), is_full: false }
    }

    fn settle(floors: &Floors, drawn: DrawnIds) {
        floors.settle(&floors.begin(&[1]), drawn);
    }

    fn floor_after(floors: &Floors, ids: &[i64]) -> i64 {
        let begin = floors.begin(&[1]);
        floors.raise(&[1], &begin, &look(ids));
        floors.begin(&[1]).floors[0]
    }

    #[test]
    fn a_lane_is_settled_if_its_last_row_is_and_until_something_is_forgotten() {
        let floors = Floors::default();
        settle(&floors, drawn(2, &[]));
        settle(&floors, drawn(9, &[]));
        let begin = floors.begin(&[1]);
        assert_eq!(begin.settled(&look(&[1, 2])).lanes, BTreeMap::from([(1, 2)]));
        assert!(
            begin.settled(&look(&[1, 2, 3])).lanes.is_empty(),
            "3 may be followed by a 2 that commits late"
        );
        let settled = begin.settled(&look(&[1]));
        assert!(floors.still_hold(&settled));
        floors.forget();
        assert!(!floors.still_hold(&settled));
    }

    // Planted bug: `settle` without the look at who is still open.
    #[test]
    fn an_id_whose_transaction_is_open_stays_above_the_floor() {
        let floors = Floors::default();
        assert_eq!(floor_after(&floors, &[50]), 0, "nothing is settled yet");
        settle(&floors, drawn(40, &["late", "other"]));
        settle(&floors, drawn(60, &["late"]));
        assert_eq!(floor_after(&floors, &[50]), 0, "40 or less may still appear");
        settle(&floors, drawn(70, &["new"]));
        assert_eq!(floor_after(&floors, &[50]), 41);
        settle(&floors, drawn(80, &[]));
        assert_eq!(floor_after(&floors, &[50]), 50, "a row that is there");
        assert_eq!(floor_after(&floors, &[]), 71);
    }

    #[test]
    fn what_another_server_said_is_forgotten() {
        let floors = Floors::default();
        settle(&floors, drawn(40, &[]));
        settle(&floors, drawn(40, &[]));
        let begin = floors.begin(&[1]);
        assert_eq!(floor_after(&floors, &[]), 41);
        floors.forget();
        floors.raise(&[1], &begin, &look(&[]));
        // Planted bug: these two counted, which were asked of the server before.
        floors.settle(&begin, drawn(50, &[]));
        floors.settle(&begin, drawn(50, &[]));
        assert_eq!(floor_after(&floors, &[]), 0);
    }
}
