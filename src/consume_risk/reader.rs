//! Reading ahead: one task fetches and decodes the next records of the partition while the last ones are committed.
//!
//! In memory are one fetch, one batch that waits decoded, and the one that is being handled; a batch is decoded only
//! when the memory that all partitions share has room for it. After any trouble the reader is thrown away and begun
//! anew at the position.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::{
    decode::{Event, RecordFault, decode},
    memory_budget::{MemoryBudget, record_bytes},
};
use crate::{
    broker::{BrokerError, Fetched, FetchedRecord, SharedBroker},
    repository::positions::PartitionName,
};

/// Of one fetch, as the broker counts, which is compressed: between these, so that about one batch comes.
const FETCH_BYTES_MIN: usize = 1 << 14;
const FETCH_BYTES_MAX: usize = 1 << 20;
/// Of one batch, decoded.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// A record and what it means.
#[derive(Debug)]
pub(super) struct DecodedRecord {
    pub record: FetchedRecord,
    pub event: Result<Event, RecordFault>,
}

struct DecodedBatch {
    records: Vec<DecodedRecord>,
    /// Where to read on once these are handled.
    next_offset: i64,
    high_watermark: i64,
    /// None for no records.
    room: Option<OwnedSemaphorePermit>,
}

pub(super) struct Reader {
    waiting: VecDeque<DecodedRecord>,
    batches: mpsc::Receiver<Result<DecodedBatch, BrokerError>>,
    high_watermark: i64,
    read_to: i64,
    /// For the records that wait and for those that were handed out last.
    room: Option<OwnedSemaphorePermit>,
    _task: AbortOnDropHandle<()>,
}

/// Where to read, and how much at once.
pub(super) struct PartitionFetcher {
    pub broker: SharedBroker,
    pub name: PartitionName,
    pub wait_max: Duration,
    pub batch_size_max: usize,
    pub memory: Arc<MemoryBudget>,
}

impl Reader {
    /// Begins at `offset`.
    pub fn start(fetcher: PartitionFetcher, offset: i64) -> Self {
        let (sender, batches) = mpsc::channel(1);
        let task = tokio::spawn(fetcher.fetch_all(offset, sender));
        Self {
            waiting: VecDeque::new(),
            batches,
            high_watermark: offset,
            read_to: offset,
            room: None,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// The next records, at most `count_max`, when those before have been handled. None after a while in which nothing
    /// came.
    pub async fn next(&mut self, count_max: usize) -> Result<Option<Vec<DecodedRecord>>, BrokerError> {
        if self.waiting.is_empty() {
            self.room = None;
            let ended = || Err(BrokerError::Unavailable { detail: "the reading task has ended".into() });
            let batch = self.batches.recv().await.unwrap_or_else(ended)?;
            self.high_watermark = self.high_watermark.max(batch.high_watermark);
            self.read_to = batch.next_offset;
            self.waiting.extend(batch.records);
            self.room = batch.room;
        }
        let count = self.waiting.len().min(count_max);
        Ok((count > 0).then(|| self.waiting.drain(..count).collect()))
    }

    /// Puts records back that were not handled, in front of the others.
    pub fn put_back(&mut self, records: Vec<DecodedRecord>) {
        for item in records.into_iter().rev() {
            self.waiting.push_front(item);
        }
    }

    /// Where nothing waits: the offset before which everything was handed out, or is no record but a mark of somebody's
    /// transaction.
    pub fn read_to(&self) -> i64 {
        self.read_to
    }

    /// The offset that the partition's next record will get, as of the last fetch.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }
}

impl PartitionFetcher {
    /// Until something fails or nobody listens any more.
    async fn fetch_all(self, mut offset: i64, sender: mpsc::Sender<Result<DecodedBatch, BrokerError>>) {
        let (topic, partition) = (&self.name.topic, self.name.partition);
        let mut bytes_max = FETCH_BYTES_MIN;
        // Nothing is fetched before there is a place to put it.
        while let Ok(place) = sender.reserve().await {
            let fetched = self.broker.fetch(topic, partition, offset, bytes_max, self.wait_max).await;
            let Fetched { records, next_offset, high_watermark } = match fetched {
                Ok(fetched) => fetched,
                Err(error) => return place.send(Err(error)),
            };
            let is_behind = !records.is_empty() && next_offset < high_watermark;
            bytes_max = self.next_bytes_max(bytes_max, records.len(), is_behind);
            offset = next_offset.max(offset);
            let mut records = records.into_iter().peekable();
            if records.peek().is_none() {
                place.send(Ok(DecodedBatch {
                    records: Vec::new(),
                    next_offset: offset,
                    high_watermark,
                    room: None,
                }));
                continue;
            }
            drop(place);
            while records.peek().is_some() {
                let Ok(place) = sender.reserve().await else { return };
                place.send(Ok(self.decode_batch(&mut records, high_watermark).await));
            }
        }
    }

    /// Half of it after a fetch of more than two batches, twice as much after one that brought less than one although
    /// there is more.
    fn next_bytes_max(&self, bytes_max: usize, count: usize, is_behind: bool) -> usize {
        let next = match count {
            count if count > 2 * self.batch_size_max => bytes_max / 2,
            count if count < self.batch_size_max && is_behind => bytes_max * 2,
            _ => bytes_max,
        };
        next.clamp(FETCH_BYTES_MIN, FETCH_BYTES_MAX)
    }

    /// The first of `records`, at least one, as soon as there is room for them.
    async fn decode_batch(
        &self,
        records: &mut (impl Iterator<Item = FetchedRecord> + Send),
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
        let next_offset = part.last().map_or(0, |record| record.offset + 1);
        let records =
            part.into_iter().map(|record| DecodedRecord { event: decode(&record), record }).collect();
        DecodedBatch { records, next_offset, high_watermark, room }
    }
}
