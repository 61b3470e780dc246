//! Rows sorted into partitions, and which partitions are to be left alone for now.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    event::partition_of,
    repository::outbox::OutboxRow,
    runtime::{Backoff, OutageLog},
};

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

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

/// How many partitions each topic has.
pub(super) type PartitionCounts = HashMap<String, i32>;

/// Where a row goes: by its key, or by its lane if it has none, so that a lane keeps its order all the same.
pub(super) fn partition_number(key: Option<&[u8]>, lane: i16, count: i32) -> i32 {
    match key {
        Some(key) => partition_of(key, count),
        None => i32::from(lane) % count.max(1),
    }
}

/// Rows by partition, each partition's in the order in which they came: lane by lane, so a key's are in id order.
pub(super) fn sort(rows: Vec<OutboxRow>, counts: &PartitionCounts) -> BTreeMap<Partition, Vec<OutboxRow>> {
    // There are few, and most of them differ by number: to look through them costs less than a name for each row.
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

/// Partitions to be left alone: some failed and pause, some are busy with a request that takes long. While a partition
/// is here none of its rows is sent, so no row overtakes another.
#[derive(Default)]
pub(super) struct LeftAlone(Mutex<State>);

#[derive(Default)]
struct State {
    partitions: HashMap<Partition, Pause>,
    invalid: HashMap<Partition, usize>,
    outage: Option<OutageLog>,
}

struct Pause {
    backoff: Backoff,
    /// Requests under way that take long. Another batch's, which was sent before they were known to, may end before.
    slow: usize,
    ends: Instant,
}

impl Pause {
    fn lasts(&self, now: Instant) -> bool {
        self.slow > 0 || self.ends > now
    }
}

impl LeftAlone {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is any now.
    pub(super) fn is_any(&self) -> bool {
        let now = Instant::now();
        self.state().partitions.values().any(|pause| pause.lasts(now))
    }

    /// Those whose rows must stay, as of this moment. Judge all rows of a look by one answer.
    pub(super) fn all(&self) -> HashSet<Partition> {
        let now = Instant::now();
        let state = self.state();
        state.partitions.iter().filter(|(_, pause)| pause.lasts(now)).map(|(name, _)| name.clone()).collect()
    }

    /// A request to it takes long.
    pub(super) fn slow(&self, partition: &Partition) {
        State::pause(&mut self.state(), partition).slow += 1;
    }

    /// One that took long has ended; say then whether it [`LeftAlone::works`] or [`LeftAlone::failed`].
    pub(super) fn no_longer_slow(&self, partition: &Partition) {
        if let Some(pause) = self.state().partitions.get_mut(partition) {
            pause.slow = pause.slow.saturating_sub(1);
        }
    }

    /// A request to it failed: it pauses, longer each time.
    pub(super) fn failed(&self, partition: &Partition, error: &dyn fmt::Display) {
        let mut state = self.state();
        let pause = State::pause(&mut state, partition);
        pause.ends = Instant::now() + pause.backoff.next_wait();
        let outage = state.outage.get_or_insert_with(|| OutageLog::new("publishing"));
        outage.failed(&format!("{partition}: {error}"));
    }

    /// A request to it succeeded.
    pub(super) fn works(&self, partition: &Partition) {
        let mut state = self.state();
        if let Some(pause) = state.partitions.get_mut(partition)
            && pause.slow > 0
        {
            pause.ends = Instant::now();
            return;
        }
        if state.partitions.remove(partition).is_some()
            && state.partitions.is_empty()
            && let Some(outage) = &mut state.outage
        {
            outage.succeeded();
        }
    }
}

impl LeftAlone {
    /// How many of its records were invalid, one after the other, since the last that it took.
    pub(super) fn invalid_in_a_row(&self, partition: &Partition) -> usize {
        self.state().invalid.get(partition).copied().unwrap_or_default()
    }

    /// Takes note of that.
    pub(super) fn note_invalid_in_a_row(&self, partition: &Partition, count: usize) {
        let mut state = self.state();
        match count {
            0 => state.invalid.remove(partition),
            count => state.invalid.insert(partition.clone(), count),
        };
    }
}

impl State {
    fn pause(&mut self, partition: &Partition) -> &mut Pause {
        let fresh = || Pause { backoff: Backoff::new(PAUSE_MIN, PAUSE_MAX), slow: 0, ends: Instant::now() };
        self.partitions.entry(partition.clone()).or_insert_with(fresh)
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use uuid::Uuid;

    use super::*;

    fn row(lane: i16, id: i64, topic: &str, key: Option<&str>) -> OutboxRow {
        OutboxRow {
            lane,
            id,
            topic: topic.into(),
            key: key.map(Into::into),
            value: None,
            event_id: Uuid::nil(),
            event_type: "T".into(),
            created_at: Utc::now(),
            traceparent: None,
            headers: None,
        }
    }

    #[test]
    fn a_keys_rows_meet_in_one_partition_in_their_order() {
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
    fn a_partition_is_left_alone_while_busy_and_while_it_pauses() {
        let partition = Partition { topic: "t".into(), number: 1 };
        let left_alone = LeftAlone::default();
        assert!(!left_alone.all().contains(&partition));
        left_alone.slow(&partition);
        assert!(left_alone.all().contains(&partition));
        // Planted bug that this catches: another batch's success, which lets rows overtake those of the slow request.
        left_alone.works(&partition);
        assert!(left_alone.all().contains(&partition));
        left_alone.no_longer_slow(&partition);
        left_alone.failed(&partition, &"no leader");
        assert!(left_alone.all().contains(&partition));
        left_alone.works(&partition);
        assert!(!left_alone.is_any() && left_alone.all().is_empty());
    }
}
