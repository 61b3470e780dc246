//! Reads ahead: one task fetches and decodes the next records of a partition while the previous ones are committed.
//!
//! In memory are at most one fetch, one decoded batch that waits, and the batch that is being handled. A batch is
//! decoded only when the memory that all partitions share has room for it. After a failure the reader is dropped, and
//! a new one starts at the position.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::{
    decode::{Event, RecordFault, decode},
    memory_budget::{MemoryBudget, record_bytes},
};
use crate::{
    broker::{BrokerError, Fetched, FetchedRecord, LogOffset, SharedBroker},
    repository::positions::PartitionName,
};

/// The first fetch that finds no new record waits this long, so that the caller soon learns that the partition is idle.
const WAIT_MIN: Duration = Duration::from_millis(250);
/// The limits of the size of one fetch, in compressed bytes. The size adapts so that a fetch returns roughly one batch.
const FETCH_BYTES_MIN: usize = 1 << 14;
const FETCH_BYTES_MAX: usize = 1 << 20;
/// The most memory that the records of one batch may take.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// A record and its event, or why it has none.
#[derive(Debug)]
pub(super) struct DecodedRecord {
    pub record: FetchedRecord,
    pub event: Result<Event, RecordFault>,
}

struct DecodedBatch {
    records: Vec<DecodedRecord>,
    /// The offset after the last record or marker.
    next: LogOffset,
    high_watermark: i64,
    /// None for a batch without records.
    room: Option<OwnedSemaphorePermit>,
}

pub(super) struct Reader {
    waiting: VecDeque<DecodedRecord>,
    batches: mpsc::Receiver<Result<DecodedBatch, BrokerError>>,
    high_watermark: i64,
    read_to: LogOffset,
    /// The memory permit for the waiting records and for the records that were returned last.
    room: Option<OwnedSemaphorePermit>,
    _task: AbortOnDropHandle<()>,
}

/// Fetches from one partition.
pub(super) struct PartitionFetcher {
    pub broker: SharedBroker,
    pub name: PartitionName,
    pub wait_max: Duration,
    pub batch_size_max: usize,
    pub memory: Arc<MemoryBudget>,
}

impl Reader {
    /// Starts to read at an offset.
    pub fn start(fetcher: PartitionFetcher, from: LogOffset) -> Self {
        let (sender, batches) = mpsc::channel(1);
        let task = tokio::spawn(fetcher.fetch_all(from, sender));
        Self {
            waiting: VecDeque::new(),
            batches,
            high_watermark: from.offset,
            read_to: from,
            room: None,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Returns the next records, at most `count_max`. The caller must have handled the previous ones. Returns None if
    /// no record arrived within `wait_max`.
    pub async fn next(&mut self, count_max: usize) -> Result<Option<Vec<DecodedRecord>>, BrokerError> {
        if self.waiting.is_empty() {
            self.room = None;
            let ended = || Err(BrokerError::Unavailable { detail: "the reader task has ended".into() });
            let batch = self.batches.recv().await.unwrap_or_else(ended)?;
            self.high_watermark = self.high_watermark.max(batch.high_watermark);
            self.read_to = batch.next;
            self.waiting.extend(batch.records);
            self.room = batch.room;
        }
        let count = self.waiting.len().min(count_max);
        Ok((count > 0).then(|| self.waiting.drain(..count).collect()))
    }

    /// Puts unhandled records back, in front of the others.
    pub fn put_back(&mut self, records: Vec<DecodedRecord>) {
        for item in records.into_iter().rev() {
            self.waiting.push_front(item);
        }
    }

    /// Returns the offset up to which the partition was read. Valid only when no record waits. Every offset before it
    /// was returned as a record, or holds a transaction marker.
    pub fn read_to(&self) -> LogOffset {
        self.read_to
    }

    /// The offset of the next record to be appended to the partition, as of the last fetch.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }
}

impl PartitionFetcher {
    /// Fetches until a fetch fails or the reader is dropped.
    async fn fetch_all(self, mut at: LogOffset, sender: mpsc::Sender<Result<DecodedBatch, BrokerError>>) {
        let (topic, partition) = (&self.name.topic, self.name.partition);
        let mut bytes_max = FETCH_BYTES_MIN;
        let mut wait = next_wait(None, self.wait_max);
        // Fetch only when there is room for the result.
        while let Ok(permit) = sender.reserve().await {
            let fetched = self.broker.fetch_from(topic, partition, at, bytes_max, wait).await;
            let Fetched { records, next_offset, leader_epoch, high_watermark } = match fetched {
                Ok(fetched) => fetched,
                Err(error) => return permit.send(Err(error)),
            };
            let is_behind = !records.is_empty() && next_offset < high_watermark;
            bytes_max = self.next_bytes_max(bytes_max, records.len(), is_behind);
            let is_idle = records.is_empty() && next_offset <= at.offset;
            wait = next_wait(is_idle.then_some(wait), self.wait_max);
            at = at.advanced_to(next_offset, leader_epoch);
            let mut records = records.into_iter().peekable();
            if records.peek().is_none() {
                permit.send(Ok(DecodedBatch { records: Vec::new(), next: at, high_watermark, room: None }));
                continue;
            }
            drop(permit);
            while records.peek().is_some() {
                let Ok(permit) = sender.reserve().await else { return };
                permit.send(Ok(self.decode_batch(&mut records, at, high_watermark).await));
            }
        }
    }

    /// Adapts the fetch size: half after a fetch of more than two batches, double after a fetch of less than one batch
    /// while more records were available.
    fn next_bytes_max(&self, bytes_max: usize, count: usize, is_behind: bool) -> usize {
        let next = match count {
            count if count > 2 * self.batch_size_max => bytes_max / 2,
            count if count < self.batch_size_max && is_behind => bytes_max * 2,
            _ => bytes_max,
        };
        next.clamp(FETCH_BYTES_MIN, FETCH_BYTES_MAX)
    }

    /// Takes one batch from the front of `records`, at least one record, and decodes it when the memory has room. The fetch
    /// ended at `end`.
    async fn decode_batch(
        &self,
        records: &mut (impl Iterator<Item = FetchedRecord> + Send),
        end: LogOffset,
        high_watermark: i64,
    ) -> DecodedBatch {
        let mut bytes = 0;
        let mut part = Vec::new();
        for record in records {
            bytes += record_bytes(&record);
            part.push(record);
            if part.len() >= self.batch_size_max || bytes >= BATCH_BYTES_MAX {
                break;
            }
        }
        let room = self.memory.room_for_records(bytes).await;
        let next = part.last().map_or(end, |record| LogOffset {
            offset: record.offset + 1,
            leader_epoch: record.leader_epoch,
            ..end
        });
        let records =
            part.into_iter().map(|record| DecodedRecord { event: decode(&record), record }).collect();
        DecodedBatch { records, next, high_watermark, room }
    }
}

/// Returns the wait of the next fetch: twice that of the last one while the partition is idle, to spare the broker.
fn next_wait(idle_wait: Option<Duration>, wait_max: Duration) -> Duration {
    idle_wait.map_or(WAIT_MIN, |wait| wait * 2).min(wait_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_of_an_idle_partition_grows_up_to_the_maximum() {
        let wait_max = Duration::from_secs(2);
        let mut waits = vec![next_wait(None, wait_max)];
        for _ in 0..4 {
            waits.push(next_wait(waits.last().copied(), wait_max));
        }
        assert_eq!(waits, [250, 500, 1_000, 2_000, 2_000].map(Duration::from_millis));
        assert_eq!(next_wait(None, Duration::from_millis(10)), Duration::from_millis(10));
    }
}
