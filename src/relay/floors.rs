//! The scan floor of each lane: the outbox id below which the lane is known to be empty, now and for ever. Pure.
//!
//! Guarantee: no row ever commits below a floor, unless an id is drawn twice (see [`super::floor_check`]). A floor rises
//! only over *settled* ids. An id is settled once the database transaction that drew it has ended:
//!
//! - A transaction that draws an id holds a lock on the table from before the draw until its end.
//! - The relay reads the last id drawn and the transactions that hold that lock. When none of them holds it any more,
//!   every id up to that one is settled.
//! - Only a scan that began after that raises a floor.
//!
//! The model in `tests/model` explores this code together with writers, several relays and faults.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    event::LANES,
    repository::outbox::{DrawnIds, OutboxScan},
};

/// The floors of all lanes that were scanned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Floors {
    lanes: BTreeMap<i16, i64>,
    /// Every id up to this one is settled. 0 if unknown.
    settled: i64,
    /// The drawn ids that are settled once all of their transactions have ended.
    next: Option<DrawnIds>,
    generation: u64,
}

/// The state at the start of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScanStart {
    /// One floor for each lane, in the order of the lanes.
    pub floors: Vec<i64>,
    settled: i64,
    generation: u64,
}

/// Lanes in which no row can appear any more between the first and the last row of a scan, with the number of rows that
/// the scan found there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct SettledLanes {
    lanes: BTreeMap<i16, usize>,
    generation: u64,
}

impl ScanStart {
    /// Returns the settled lanes among the rows of the scan that started like this.
    pub fn settled(&self, scan: &OutboxScan) -> SettledLanes {
        let mut lanes: BTreeMap<i16, (usize, i64)> = BTreeMap::new();
        for row in &scan.rows {
            let (count, last) = lanes.entry(row.lane).or_default();
            (*count, *last) = (*count + 1, row.id.max(*last));
        }
        let is_settled = |(_, (_, last)): &(i16, (usize, i64))| *last <= self.settled;
        let lanes = lanes.into_iter().filter(is_settled).map(|(lane, (count, _))| (lane, count)).collect();
        SettledLanes { lanes, generation: self.generation }
    }
}

impl SettledLanes {
    /// Returns the lanes in which all rows between the first and the last row of the scan are removed. `removed` has one entry
    /// for each row to be removed.
    pub fn removed_whole(&self, removed: impl Iterator<Item = i16>) -> BTreeSet<i16> {
        let mut counts: BTreeMap<i16, usize> = BTreeMap::new();
        for lane in removed {
            *counts.entry(lane).or_default() += 1;
        }
        let is_whole = |(lane, count): &(i16, usize)| self.lanes.get(lane) == Some(count);
        counts.into_iter().filter(is_whole).map(|(lane, _)| lane).collect()
    }
}

/// The assumptions of the floors about the outbox.
#[derive(Debug)]
pub struct Assumptions {
    /// The floor of each lane, 0 where it is unknown. No row is below it.
    pub floors: Vec<i64>,
    /// An id that was drawn, 0 if unknown. The sequence is not below it.
    pub drawn: i64,
}

impl Assumptions {
    /// Returns whether the sequence, which is at `last_id`, was set back.
    pub fn sequence_was_set_back(&self, last_id: i64) -> bool {
        last_id < self.drawn
    }
}

impl Floors {
    /// Records the drawn ids, which must have been read after `begin`. Returns false if the floors were discarded since.
    pub fn settle(&mut self, begin: &ScanStart, drawn: DrawnIds) -> bool {
        if self.generation != begin.generation {
            return false;
        }
        match &self.next {
            Some(next) if next.open.iter().any(|open| drawn.open.contains(open)) => {}
            next => {
                self.settled = next.as_ref().map_or(self.settled, |next| next.last_id.max(self.settled));
                self.next = Some(drawn);
            }
        }
        true
    }

    /// Returns what the floors assume at this moment.
    pub fn assumptions(&self) -> Assumptions {
        let floors = (0..LANES).map(|lane| self.lanes.get(&lane).copied().unwrap_or_default()).collect();
        let next = self.next.as_ref().map_or(0, |next| next.last_id);
        Assumptions { floors, drawn: next.max(self.settled) }
    }

    /// Returns where a scan of these lanes starts. Call it before the scan.
    pub fn begin(&self, lanes: &[i16]) -> ScanStart {
        let floors = lanes.iter().map(|lane| self.lanes.get(lane).copied().unwrap_or_default()).collect();
        ScanStart { floors, settled: self.settled, generation: self.generation }
    }

    /// Raises each floor to the first row of the scan, as far as the ids are settled. Returns false if the floors were
    /// discarded since the scan began.
    pub fn raise(&mut self, lanes: &[i16], begin: &ScanStart, scan: &OutboxScan) -> bool {
        if self.generation != begin.generation {
            return false;
        }
        if begin.settled == 0 {
            return true;
        }
        let mut firsts: BTreeMap<i16, i64> = BTreeMap::new();
        for row in &scan.rows {
            firsts.entry(row.lane).or_insert(row.id);
        }
        for lane in lanes {
            let first = match firsts.get(lane) {
                Some(first) => *first,
                // A full scan may have left out rows of this lane.
                None if scan.is_full => continue,
                None => i64::MAX,
            };
            let floor = self.lanes.entry(*lane).or_default();
            *floor = (*floor).max(first.min(begin.settled + 1));
        }
        true
    }

    /// Returns whether no floor was discarded since that scan.
    pub fn is_current(&self, settled: &SettledLanes) -> bool {
        self.generation == settled.generation
    }

    /// Discards all floors.
    pub fn discard(&mut self) {
        *self = Self { generation: self.generation + 1, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::outbox::OutboxRow;

    fn drawn(last_id: i64, open: &[&str]) -> DrawnIds {
        DrawnIds { last_id, open: open.iter().map(|name| (*name).to_owned()).collect() }
    }

    fn scan(ids: &[i64]) -> OutboxScan {
        let row = |id: &i64| OutboxRow { lane: 1, id: *id, ..OutboxRow::default() };
        OutboxScan { rows: ids.iter().map(row).collect(), is_full: false }
    }

    fn settle(floors: &mut Floors, drawn: DrawnIds) {
        let begin = floors.begin(&[1]);
        floors.settle(&begin, drawn);
    }

    fn floor_after(floors: &mut Floors, ids: &[i64]) -> i64 {
        let begin = floors.begin(&[1]);
        floors.raise(&[1], &begin, &scan(ids));
        floors.begin(&[1]).floors[0]
    }

    #[test]
    fn a_lane_is_settled_if_its_last_row_is_settled_until_the_floors_are_discarded() {
        let mut floors = Floors::default();
        settle(&mut floors, drawn(2, &[]));
        settle(&mut floors, drawn(9, &[]));
        let begin = floors.begin(&[1]);
        assert_eq!(begin.settled(&scan(&[1, 2])).lanes, BTreeMap::from([(1, 2)]));
        assert!(
            begin.settled(&scan(&[1, 2, 3])).lanes.is_empty(),
            "3 is not settled, so a row below it may still commit"
        );
        let settled = begin.settled(&scan(&[1]));
        assert!(floors.is_current(&settled));
        floors.discard();
        assert!(!floors.is_current(&settled));
    }

    // Seen to fail when `settle` ignored the open transactions.
    #[test]
    fn an_id_whose_transaction_is_open_stays_above_the_floor() {
        let mut floors = Floors::default();
        assert_eq!(floor_after(&mut floors, &[50]), 0, "no id is settled");
        settle(&mut floors, drawn(40, &["late", "other"]));
        settle(&mut floors, drawn(60, &["late"]));
        assert_eq!(floor_after(&mut floors, &[50]), 0, "an id up to 40 may still commit");
        settle(&mut floors, drawn(70, &["new"]));
        assert_eq!(floor_after(&mut floors, &[50]), 41);
        settle(&mut floors, drawn(80, &[]));
        assert_eq!(floor_after(&mut floors, &[50]), 50, "the first row present");
        assert_eq!(floor_after(&mut floors, &[]), 71);
    }

    #[test]
    fn the_floors_of_another_server_are_discarded() {
        let mut floors = Floors::default();
        settle(&mut floors, drawn(40, &[]));
        settle(&mut floors, drawn(40, &[]));
        let begin = floors.begin(&[1]);
        assert_eq!(floor_after(&mut floors, &[]), 41);
        floors.discard();
        floors.raise(&[1], &begin, &scan(&[]));
        // Seen to fail when the answers of the previous server were accepted.
        floors.settle(&begin, drawn(50, &[]));
        floors.settle(&begin, drawn(50, &[]));
        assert_eq!(floor_after(&mut floors, &[]), 0);
    }
}
