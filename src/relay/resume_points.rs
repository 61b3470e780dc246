//! Where scans resume while some partitions are paused.
//!
//! A scan is bounded. A partition that is paused for an hour leaves more rows at the head of a lane than one scan
//! reads, and the rows of other partitions after them would never be found. So the next scan of such a lane resumes
//! after them.
//!
//! Order is kept: the rows of a key commit in the order of their ids, so no row overtakes another of its own key. A row
//! of another key that commits late, with a lower id, is found when the scans start from the scan floor again.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use super::partitions::Partition;
use crate::repository::outbox::OutboxAddress;

/// The scans start from the scan floor again this long after they have reached the end of every lane, and when a pause
/// ends.
const RESTART_AFTER: Duration = Duration::from_secs(10);

/// The ids from which the next scans resume.
#[derive(Default)]
pub(super) struct ResumePoints {
    paused: HashSet<Partition>,
    ended_at: Option<Instant>,
    lanes: BTreeMap<i16, i64>,
}

impl ResumePoints {
    /// Returns the id at which the next scan of each lane starts, in the order of `lanes`. It is never below the lane's
    /// scan floor.
    pub(super) fn starts(&mut self, paused: &HashSet<Partition>, lanes: &[i16], floors: &[i64]) -> Vec<i64> {
        let is_over = self.ended_at.is_some_and(|ended_at| ended_at.elapsed() >= RESTART_AFTER);
        // The resume points stay valid when more partitions are paused, but not when a pause has ended.
        if is_over || !paused.is_superset(&self.paused) {
            *self = Self::default();
        }
        self.paused.clone_from(paused);
        let start = |(lane, floor): (&i16, &i64)| {
            self.lanes.get(lane).map_or(*floor, |resume_at| *resume_at.max(floor))
        };
        lanes.iter().zip(floors).map(start).collect()
    }

    /// Records a scan of at most `per_lane` rows per lane. If all rows of a lane belong to paused partitions, the next
    /// scan of that lane resumes after them. Returns whether there is such a lane.
    pub(super) fn record_scan(
        &mut self,
        paused: &HashSet<Partition>,
        found: &[OutboxAddress],
        per_lane: usize,
        is_paused: impl Fn(&OutboxAddress) -> bool,
    ) -> bool {
        if self.paused != *paused {
            return false;
        }
        let mut has_news = false;
        for of_lane in found.chunk_by(|one, next| one.lane == next.lane) {
            if let Some(last) = of_lane.last()
                && of_lane.len() >= per_lane
                && of_lane.iter().all(&is_paused)
            {
                self.lanes.insert(last.lane, last.id + 1);
                has_news = true;
            }
        }
        self.ended_at = if has_news { None } else { self.ended_at.or_else(|| Some(Instant::now())) };
        has_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_resumes_behind_a_lane_full_of_rows_of_paused_partitions() {
        let address = |lane, id| OutboxAddress { lane, id, topic: "t".into(), key: None };
        let paused = HashSet::from([Partition { topic: "t".into(), number: 1 }]);
        let mut resume_points = ResumePoints::default();
        let lanes = [1, 2, 3];
        assert_eq!(resume_points.starts(&paused, &lanes, &[5, 5, 5]), [5, 5, 5]);
        let found = [address(1, 7), address(1, 9), address(2, 8), address(2, 10), address(3, 11)];
        // Row 8 is not paused, and lane 3 has fewer rows than the limit.
        assert!(resume_points.record_scan(&paused, &found, 2, |address| address.id != 8), "resumes at once");
        assert_eq!(resume_points.starts(&paused, &lanes, &[5, 5, 12]), [10, 5, 12]);
        assert!(!resume_points.record_scan(&paused, &[], 2, |_| true));
        let more = HashSet::from([1, 2].map(|number| Partition { topic: "t".into(), number }));
        assert_eq!(
            resume_points.starts(&more, &lanes, &[5, 5, 5]),
            [10, 5, 5],
            "one more partition is paused"
        );
        assert_eq!(resume_points.starts(&paused, &lanes, &[5, 5, 5]), [5, 5, 5], "a pause ended");
    }
}
