//! Reads a topic from its first record to the end that it had when the reading began.

use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};

use crate::{
    broker::{Broker, BrokerError, FetchedRecord, OffsetRange},
    repository::broker_identity::RecordedTopic,
    runtime::BrokerRecord,
};

const FETCH_BYTES_MAX: usize = 4 * 1024 * 1024;
const FETCH_WAIT_MAX: Duration = Duration::from_secs(1);
/// Retries of one fetch, so that a short outage of the broker does not end a check that takes minutes.
const FETCH_RETRIES_MAX: u32 = 10;
/// Empty answers in a row after which the partition counts as read; each waits for [`FETCH_WAIT_MAX`].
const EMPTY_FETCHES_MAX: u32 = 3;
const FETCH_RETRY_WAIT: Duration = Duration::from_secs(1);

/// The switches of the broker that a topic went through.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TopicHistory {
    /// When the ledger moved to this broker. Earlier events are in the topics of another one.
    pub(super) moved_at: Option<DateTime<Utc>>,
    /// Whether the topic got another number of partitions, so that the events of an account may be in two of them.
    pub(super) repartitioned: bool,
}

impl TopicHistory {
    pub(super) fn new(record: &BrokerRecord, topic: &str) -> Self {
        let moved = record.broker.as_ref().filter(|broker| broker.moved_from.is_some());
        let is_repartitioned =
            |recorded: &RecordedTopic| recorded.topic == topic && recorded.partitions_before.is_some();
        Self {
            moved_at: moved.map(|broker| broker.recorded_at),
            repartitioned: record.topics.iter().any(is_repartitioned),
        }
    }
}

/// Returns the number of partitions of the topic; 0 for a topic that does not exist.
pub(super) async fn partitions(broker: &dyn Broker, topic: &str) -> Result<i32, BrokerError> {
    match broker.partitions(topic).await {
        Err(BrokerError::NoSuchTopic(_)) => Ok(0),
        partitions => partitions,
    }
}

/// Reads one partition.
pub(super) struct PartitionReader<'a> {
    broker: &'a dyn Broker,
    topic: &'static str,
    partition: i32,
    next: i64,
    /// The offsets that the partition held when the reading began.
    pub(super) range: OffsetRange,
}

impl<'a> PartitionReader<'a> {
    pub(super) async fn open(
        broker: &'a dyn Broker,
        topic: &'static str,
        partition: i32,
    ) -> Result<Self, BrokerError> {
        let range = broker.offset_range(topic, partition).await?;
        Ok(Self { broker, topic, partition, next: range.earliest, range })
    }

    /// Returns the next records, possibly none; None at the end. Offsets may have gaps.
    pub(super) async fn read(&mut self) -> anyhow::Result<Option<Vec<FetchedRecord>>> {
        let (topic, partition, latest) = (self.topic, self.partition, self.range.latest);
        let (mut retries, mut empty) = (0, 0);
        while self.next < latest {
            match self.broker.fetch(topic, partition, self.next, FETCH_BYTES_MAX, FETCH_WAIT_MAX).await {
                // Empty before the end: a new leader may not know the high watermark yet.
                Ok(fetched) if fetched.next_offset <= self.next => {
                    empty += 1;
                    if empty == EMPTY_FETCHES_MAX {
                        return Ok(None);
                    }
                }
                Ok(fetched) => {
                    self.next = fetched.next_offset;
                    return Ok(Some(
                        fetched.records.into_iter().filter(|record| record.offset < latest).collect(),
                    ));
                }
                Err(error) if error.is_transient() && retries < FETCH_RETRIES_MAX => {
                    retries += 1;
                    tracing::warn!(%error, topic, partition, "cannot read the topic, retrying");
                    tokio::time::sleep(FETCH_RETRY_WAIT).await;
                }
                Err(error) => return Err(error).with_context(|| format!("reading {topic}/{partition}")),
            }
        }
        Ok(None)
    }
}
