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

/// After this the looks begin at the beginning again; at the latest, for they also do when a pause begins or ends.
const LASTS_MAX: Duration = Duration::from_secs(10);

/// Where looks go on.
#[derive(Default)]
pub(super) struct Past {
    left_alone: HashSet<Partition>,
    began_at: Option<Instant>,
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
        let lasts = self.began_at.is_some_and(|began_at| began_at.elapsed() < LASTS_MAX);
        if !lasts || self.left_alone != *left_alone {
            *self = Self {
                left_alone: left_alone.clone(),
                began_at: Some(Instant::now()),
                lanes: BTreeMap::new(),
            };
        }
        let start =
            |(lane, floor): (&i16, &i64)| self.lanes.get(lane).map_or(*floor, |past| *past.max(floor));
        lanes.iter().zip(floors).map(start).collect()
    }

    /// Takes note of a look of at most `per_lane` rows a lane: of a lane in which there was nothing for anybody else, the
    /// next one begins behind them.
    pub(super) fn looked(
        &mut self,
        left_alone: &HashSet<Partition>,
        found: &[OutboxAddress],
        per_lane: usize,
        is_left_alone: impl Fn(&OutboxAddress) -> bool,
    ) {
        if self.left_alone != *left_alone {
            return;
        }
        for of_lane in found.chunk_by(|one, next| one.lane == next.lane) {
            if let Some(last) = of_lane.last()
                && of_lane.len() >= per_lane
                && of_lane.iter().all(&is_left_alone)
            {
                self.lanes.insert(last.lane, last.id + 1);
            }
        }
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
        past.looked(&left_alone, &found, 2, |address| address.id != 8);
        assert_eq!(past.starts(&left_alone, &lanes, &[5, 5, 12]), [10, 5, 12]);
        assert_eq!(past.starts(&HashSet::new(), &lanes, &[5, 5, 5]), [5, 5, 5], "another pause");
    }
}
