//! Sorts rows into partitions, and keeps the partitions that are paused.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    event::partition_of,
    repository::outbox::OutboxRow,
    runtime::{Backoff, OutageLog, Outages},
};

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A partition that failed longer ago, and was not tried since, has no more rows here: its lanes are another relay's.
const FAILURE_AGE_MAX: Duration = Duration::from_secs(30);

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) number: i32,
}

impl fmt::Display for Partition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.topic, self.number)
    }
}

/// The number of partitions of each topic.
pub(super) type PartitionCounts = HashMap<String, i32>;

/// Returns the partition of a row: by its key, or by its lane if it has no key. Both keep the order of the lane.
pub(super) fn partition_number(key: Option<&[u8]>, lane: i16, count: i32) -> i32 {
    match key {
        Some(key) => partition_of(key, count),
        None => i32::from(lane) % count.max(1),
    }
}

/// Sorts rows by partition. Each partition keeps the order of the scan, lane by lane, so the rows of a key are in id order.
pub(super) fn sort(rows: Vec<OutboxRow>, counts: &PartitionCounts) -> BTreeMap<Partition, Vec<OutboxRow>> {
    // There are few partitions, so a linear search is cheaper than hashing a topic name for each row.
    let mut sorted: Vec<(Partition, Vec<OutboxRow>)> = Vec::new();
    for row in rows {
        let count = counts.get(&row.topic).copied().unwrap_or(1);
        let number = partition_number(row.key.as_deref(), row.lane, count);
        let is_its = |(known, _): &&mut (Partition, _)| known.number == number && known.topic == row.topic;
        match sorted.iter_mut().find(is_its) {
            Some((_, rows)) => rows.push(row),
            None => sorted.push((Partition { topic: row.topic.clone(), number }, vec![row])),
        }
    }
    sorted.into_iter().collect()
}

/// The paused partitions: a request to them failed, or takes long and is still in flight. No row of a paused partition is
/// sent, so no row overtakes another.
pub(super) struct PausedPartitions(Mutex<State>);

struct State {
    partitions: HashMap<Partition, Pause>,
    invalid: HashMap<Partition, usize>,
    outage: OutageLog,
}

struct Pause {
    backoff: Backoff,
    /// The number of slow requests in flight. A request of another batch, sent before this one was slow, may end first.
    slow: usize,
    ends: Instant,
    has_failed: bool,
}

impl Pause {
    fn lasts(&self, now: Instant) -> bool {
        self.slow > 0 || self.ends > now
    }

    fn fails(&self, now: Instant) -> bool {
        self.has_failed && (self.slow > 0 || self.ends + FAILURE_AGE_MAX > now)
    }
}

impl PausedPartitions {
    pub(super) fn new(outages: &Outages) -> Self {
        let outage = outages.log_of("publishing the outbox");
        Self(Mutex::new(State { partitions: HashMap::new(), invalid: HashMap::new(), outage }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether any partition is paused.
    pub(super) fn is_any(&self) -> bool {
        let now = Instant::now();
        self.state().partitions.values().any(|pause| pause.lasts(now))
    }

    /// Returns whether publishing to any partition fails.
    pub(super) fn is_any_failing(&self) -> bool {
        let now = Instant::now();
        self.state().partitions.values().any(|pause| pause.fails(now))
    }

    /// Returns the partitions that are paused at this moment. Use one answer for all rows of a scan.
    pub(super) fn all(&self) -> HashSet<Partition> {
        let now = Instant::now();
        let state = self.state();
        state.partitions.iter().filter(|(_, pause)| pause.lasts(now)).map(|(name, _)| name.clone()).collect()
    }

    /// Records that a request takes long.
    pub(super) fn mark_slow(&self, partition: &Partition) {
        State::pause(&mut self.state(), partition).slow += 1;
    }

    /// Records that a slow request has ended. Call [`PausedPartitions::succeeded`] or [`PausedPartitions::failed`] next.
    pub(super) fn clear_slow(&self, partition: &Partition) {
        if let Some(pause) = self.state().partitions.get_mut(partition) {
            pause.slow = pause.slow.saturating_sub(1);
        }
    }

    /// Records that a request failed, and pauses the partition, longer each time.
    pub(super) fn failed(&self, partition: &Partition, error: &dyn fmt::Display) {
        let mut state = self.state();
        let pause = State::pause(&mut state, partition);
        pause.ends = Instant::now() + pause.backoff.next_wait();
        pause.has_failed = true;
        state.outage.failed(&format!("{partition}: {error}"));
    }

    /// Records that a request succeeded.
    pub(super) fn succeeded(&self, partition: &Partition) {
        let mut state = self.state();
        if let Some(pause) = state.partitions.get_mut(partition)
            && pause.slow > 0
        {
            pause.ends = Instant::now();
            return;
        }
        let now = Instant::now();
        if state.partitions.remove(partition).is_some()
            && !state.partitions.values().any(|pause| pause.fails(now))
        {
            state.outage.succeeded();
        }
    }
}

impl PausedPartitions {
    /// Returns the number of consecutive invalid records since the last accepted one.
    pub(super) fn invalid_in_a_row(&self, partition: &Partition) -> usize {
        self.state().invalid.get(partition).copied().unwrap_or_default()
    }

    /// Records the number of consecutive invalid records.
    pub(super) fn record_invalid_in_a_row(&self, partition: &Partition, count: usize) {
        let mut state = self.state();
        match count {
            0 => state.invalid.remove(partition),
            count => state.invalid.insert(partition.clone(), count),
        };
    }
}

impl State {
    fn pause(&mut self, partition: &Partition) -> &mut Pause {
        let fresh = || Pause {
            backoff: Backoff::new(PAUSE_MIN, PAUSE_MAX),
            slow: 0,
            ends: Instant::now(),
            has_failed: false,
        };
        self.partitions.entry(partition.clone()).or_insert_with(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(lane: i16, id: i64, topic: &str, key: Option<&str>) -> OutboxRow {
        OutboxRow { lane, id, topic: topic.into(), key: key.map(Into::into), ..OutboxRow::default() }
    }

    #[test]
    fn the_rows_of_a_key_go_to_one_partition_in_order() {
        let counts = PartitionCounts::from([("t".to_owned(), 12)]);
        let rows =
            (0..100).map(|id| row(3, id, "t", Some(["a", "b", "c"][usize::try_from(id).unwrap() % 3])));
        let sorted = sort(rows.collect(), &counts);
        for key in ["a", "b", "c"] {
            let partition = Partition { topic: "t".into(), number: partition_of(key.as_bytes(), 12) };
            let ids: Vec<i64> = sorted[&partition]
                .iter()
                .filter(|row| row.key.as_deref() == Some(key.as_bytes()))
                .map(|row| row.id)
                .collect();
            assert!(ids.len() >= 33 && ids.is_sorted(), "{ids:?}");
        }
    }

    #[test]
    fn rows_without_a_key_keep_the_order_of_their_lane() {
        assert_eq!(partition_number(None, 31, 12), 7);
        assert_eq!(partition_number(None, 3, 0), 0);
    }

    #[test]
    fn a_partition_is_paused_while_a_request_is_slow_and_after_a_failure() {
        let partition = Partition { topic: "t".into(), number: 1 };
        let paused = PausedPartitions::new(&Outages::default());
        assert!(!paused.all().contains(&partition));
        paused.mark_slow(&partition);
        assert!(paused.all().contains(&partition));
        // Seen to fail when the success of another batch ended the pause: rows then overtake those of the slow request.
        paused.succeeded(&partition);
        assert!(paused.all().contains(&partition));
        paused.clear_slow(&partition);
        assert!(!paused.is_any_failing());
        paused.failed(&partition, &"no leader");
        assert!(paused.all().contains(&partition) && paused.is_any_failing());
        paused.succeeded(&partition);
        assert!(!paused.is_any() && paused.all().is_empty() && !paused.is_any_failing());
    }
}
