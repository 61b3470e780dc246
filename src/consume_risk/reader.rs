//! Reading ahead: one task fetches and decodes the next records of the partition while the last ones are committed.
//!
//! At most two chunks wait in memory. After any trouble the reader is thrown away and begun anew at the position.

use std::{collections::VecDeque, time::Duration};

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::decode::{Event, Unhandled, decode};
use crate::{
    broker::{BrokerError, FetchedRecord, SharedBroker},
    repository::positions::PartitionName,
};

/// Of one fetch: about a thousand events.
const FETCH_BYTES_MAX: usize = 1 << 19;
/// Chunks that wait decoded.
const CHUNKS_AHEAD: usize = 1;

/// A record and what it means.
#[derive(Debug)]
pub(super) struct Item {
    pub record: FetchedRecord,
    pub decoded: Result<Event, Unhandled>,
}

struct Chunk {
    items: Vec<Item>,
    high_watermark: i64,
}

pub(super) struct Reader {
    waiting: VecDeque<Item>,
    chunks: mpsc::Receiver<Result<Chunk, BrokerError>>,
    high_watermark: i64,
    _task: AbortOnDropHandle<()>,
}

impl Reader {
    /// Begins at `offset`.
    pub fn start(broker: SharedBroker, name: &PartitionName, offset: i64, wait_max: Duration) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let (topic, partition) = (name.topic.clone(), name.partition);
        let task =
            tokio::spawn(async move { read(broker, topic, partition, offset, wait_max, sender).await });
        Self { waiting: VecDeque::new(), chunks, high_watermark: offset, _task: AbortOnDropHandle::new(task) }
    }

    /// The next records, at most `count_max`. None after a while in which nothing came.
    pub async fn next(&mut self, count_max: usize) -> Result<Option<Vec<Item>>, BrokerError> {
        if self.waiting.is_empty() {
            let ended = || Err(BrokerError::Unavailable { detail: "the reading task has ended".into() });
            let chunk = self.chunks.recv().await.unwrap_or_else(ended)?;
            self.high_watermark = self.high_watermark.max(chunk.high_watermark);
            self.waiting.extend(chunk.items);
        }
        let count = self.waiting.len().min(count_max);
        Ok((count > 0).then(|| self.waiting.drain(..count).collect()))
    }

    /// Puts records back that were not handled, in front of the others.
    pub fn put_back(&mut self, items: Vec<Item>) {
        for item in items.into_iter().rev() {
            self.waiting.push_front(item);
        }
    }

    /// The offset that the partition's next record will get, as of the last fetch.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }
}

async fn read(
    broker: SharedBroker,
    topic: String,
    partition: i32,
    mut offset: i64,
    wait_max: Duration,
    sender: mpsc::Sender<Result<Chunk, BrokerError>>,
) {
    loop {
        let fetched = broker.fetch(&topic, partition, offset, FETCH_BYTES_MAX, wait_max).await;
        let chunk = fetched.map(|fetched| {
            let wanted = fetched.records.into_iter().filter(|record| record.offset >= offset);
            let items: Vec<Item> = wanted.map(|record| Item { decoded: decode(&record), record }).collect();
            Chunk { items, high_watermark: fetched.high_watermark }
        });
        if let Ok(Chunk { items, .. }) = &chunk
            && let Some(last) = items.last()
        {
            offset = last.record.offset + 1;
        }
        let failed = chunk.is_err();
        if sender.send(chunk).await.is_err() || failed {
            return;
        }
    }
}
