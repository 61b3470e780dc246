//! How far looks have gone past rows of partitions that are to be left alone.
//!
//! A look is bounded, and a partition that is away for an hour leaves more rows at the head of a lane than one look
//! takes in: without this, no other partition's row behind them would ever be found. A key's rows commit in the order of
//! their ids, so going past some never lets a row overtake one of its own key; a row of another key that commits late,
//! with a lower id, is found when the looks begin at the beginning again.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use super::partitions::Partition;
use crate::repository::outbox::OutboxAddress;

/// So long after the looks came to an end they begin at the beginning again; at the latest, for they also do when a
/// pause ends.
const LASTS_MAX: Duration = Duration::from_secs(10);

/// Where looks go on.
#[derive(Default)]
pub(super) struct Past {
    left_alone: HashSet<Partition>,
    ended_at: Option<Instant>,
    lanes: BTreeMap<i16, i64>,
}

impl Past {
    /// Where a look begins, in the order of the lanes: not below their floors.
    pub(super) fn starts(
        &mut self,
        left_alone: &HashSet<Partition>,
        lanes: &[i16],
        floors: &[i64],
    ) -> Vec<i64> {
        let is_over = self.ended_at.is_some_and(|ended_at| ended_at.elapsed() >= LASTS_MAX);
        // What was passed for some may be passed for more, but not for fewer.
        if is_over || !left_alone.is_superset(&self.left_alone) {
            *self = Self::default();
        }
        self.left_alone.clone_from(left_alone);
        let start =
            |(lane, floor): (&i16, &i64)| self.lanes.get(lane).map_or(*floor, |past| *past.max(floor));
        lanes.iter().zip(floors).map(start).collect()
    }

    /// Takes note of a look of at most `per_lane` rows a lane: of a lane in which there was nothing for anybody else, the
    /// next one begins behind them. Answers whether there is any such lane.
    pub(super) fn looked(
        &mut self,
        left_alone: &HashSet<Partition>,
        found: &[OutboxAddress],
        per_lane: usize,
        is_left_alone: impl Fn(&OutboxAddress) -> bool,
    ) -> bool {
        if self.left_alone != *left_alone {
            return false;
        }
        let mut has_moved = false;
        for of_lane in found.chunk_by(|one, next| one.lane == next.lane) {
            if let Some(last) = of_lane.last()
                && of_lane.len() >= per_lane
                && of_lane.iter().all(&is_left_alone)
            {
                self.lanes.insert(last.lane, last.id + 1);
                has_moved = true;
            }
        }
        self.ended_at = if has_moved { None } else { self.ended_at.or_else(|| Some(Instant::now())) };
        has_moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_go_on_behind_a_lane_full_of_rows_that_have_to_stay() {
        let address = |lane, id| OutboxAddress { lane, id, topic: "t".into(), key: None };
        let left_alone = HashSet::from([Partition { topic: "t".into(), number: 1 }]);
        let mut past = Past::default();
        let lanes = [1, 2, 3];
        assert_eq!(past.starts(&left_alone, &lanes, &[5, 5, 5]), [5, 5, 5]);
        let found = [address(1, 7), address(1, 9), address(2, 8), address(2, 10), address(3, 11)];
        // 8 may be sent, and lane 3 has no more.
        assert!(past.looked(&left_alone, &found, 2, |address| address.id != 8), "look on at once");
        assert_eq!(past.starts(&left_alone, &lanes, &[5, 5, 12]), [10, 5, 12]);
        assert!(!past.looked(&left_alone, &[], 2, |_| true));
        let more = HashSet::from([1, 2].map(|number| Partition { topic: "t".into(), number }));
        assert_eq!(past.starts(&more, &lanes, &[5, 5, 5]), [10, 5, 5], "one more pauses");
        assert_eq!(past.starts(&left_alone, &lanes, &[5, 5, 5]), [5, 5, 5], "it does not any more");
    }
}
