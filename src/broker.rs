//! The broker that carries events: one trait with two implementations, Kafka and a PostgreSQL table.
//!
//! Guarantees of every broker:
//!
//! - `produce` returns only when the records are durable: committed, or acknowledged with `acks=all`.
//! - The records of one call keep their order within the partition.
//! - Offsets rise, and a fetch never skips a record that was durable before a record that it returned.
//! - Duplicates appear only after a lost acknowledgement.
//! - Every call has a time limit of its own. A wait for a quota of the broker extends it.
//!
//! Only this module knows Kafka's protocol.

mod error;
mod kafka;
mod postgres;
mod topic_check;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

pub use error::BrokerError;
pub use kafka::KafkaBroker;
pub use postgres::PostgresBroker;
pub use topic_check::{TopicProblems, check_topic};

pub use crate::repository::broker_identity::BrokerIdentity;
use crate::{
    config::{BrokerKind, Config},
    event::{Headers, RISK_ASSESSMENTS_TOPIC, TRANSACTIONS_DEAD_LETTER_TOPIC, TRANSACTIONS_TOPIC},
    repository::Pool,
};

/// The most bytes that the relay publishes in one request. Kafka's default limit is 1 MiB.
pub const REQUEST_BYTES_MAX: usize = 900_000;

/// A topic as the configuration wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// The name of the topic.
    pub name: String,
    /// The smallest number of partitions.
    pub partitions: i32,
    /// Copies of each partition (Kafka only).
    pub replication_factor: i16,
    /// Replicas that must have a record before it counts as published (Kafka only).
    pub min_insync_replicas: i16,
    /// How long records are kept.
    pub retention: Retention,
}

impl TopicSpec {
    /// Describes a topic without replication whose records are kept for ever.
    pub fn new(name: impl Into<String>, partitions: i32) -> Self {
        Self {
            name: name.into(),
            partitions,
            replication_factor: 1,
            min_insync_replicas: 1,
            retention: Retention::default(),
        }
    }
}

/// Limits beyond which the first records of a partition are removed. Each limit applies on its own; by default there is
/// none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// The greatest age of a record.
    pub age: Option<Duration>,
    /// The greatest size of a partition.
    pub bytes: Option<u64>,
}

impl Retention {
    /// Reads the configured values, where zero means no limit.
    pub fn new(age: Duration, bytes: u64) -> Self {
        Self { age: (!age.is_zero()).then_some(age), bytes: (bytes > 0).then_some(bytes) }
    }
}

/// A topic as the broker describes it. A field is `None` if the broker does not have it or does not reveal it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicState {
    /// The number of partitions.
    pub partitions: i32,
    /// Copies of the first partition.
    pub replication_factor: Option<i16>,
    /// Replicas that must have a record before it counts as published.
    pub min_insync_replicas: Option<i16>,
    /// How long records are kept.
    pub retention: Option<Retention>,
    /// Kafka's policy for old records: `delete`, `compact` or both.
    pub cleanup_policy: Option<String>,
    /// The largest batch of records that the topic accepts.
    pub message_bytes_max: Option<usize>,
    /// Whether a replica that lacks records may become the leader.
    pub unclean_election: Option<bool>,
    /// The number of brokers in the cluster.
    pub brokers: Option<usize>,
    /// Whether this user may not read the settings of the topic.
    pub hides_settings: bool,
}

impl TopicState {
    /// Describes a topic by its number of partitions alone.
    fn of_partitions(partitions: i32) -> Self {
        Self {
            partitions,
            replication_factor: None,
            min_insync_replicas: None,
            retention: None,
            cleanup_policy: None,
            message_bytes_max: None,
            unclean_election: None,
            brokers: None,
            hides_settings: false,
        }
    }
}

/// A broker at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerState {
    /// Which broker it is.
    pub identity: BrokerIdentity,
    /// The number of partitions of each topic that was asked for and exists.
    pub partitions: BTreeMap<String, i32>,
}

/// A record to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingRecord {
    /// The key. The caller has chosen the partition by it.
    pub key: Option<Bytes>,
    /// The content; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers, in order.
    pub headers: Headers,
    /// The time of publication, because brokers measure retention by it. The event says when it happened.
    pub timestamp: DateTime<Utc>,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedRecord {
    /// The number of the record in its partition.
    pub offset: i64,
    /// The key as published.
    pub key: Option<Bytes>,
    /// The value as published.
    pub value: Option<Bytes>,
    /// The headers as published.
    pub headers: Headers,
    /// The time of publication.
    pub timestamp: DateTime<Utc>,
    /// Which leader of the partition appended the record (Kafka only). Each new leader has a higher epoch.
    pub leader_epoch: Option<i32>,
}

/// An offset, and the log that it belongs to. In another log, the same offset is another record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogOffset {
    /// The offset.
    pub offset: i64,
    /// The id of the log. None: the log is not checked.
    pub log_id: Option<Uuid>,
    /// The leader epoch of the record before the offset. None: it is not checked.
    pub leader_epoch: Option<i32>,
}

impl LogOffset {
    /// An offset in the current log of the partition.
    pub const fn unchecked(offset: i64) -> Self {
        Self { offset, log_id: None, leader_epoch: None }
    }

    /// Returns the offset of the next fetch, after one from here ended at `next_offset`. `leader_epoch` belongs to the last
    /// record or marker that was fetched. An offset never goes back.
    #[must_use]
    pub fn advanced_to(self, next_offset: i64, leader_epoch: Option<i32>) -> Self {
        match next_offset > self.offset {
            true => Self { offset: next_offset, leader_epoch, ..self },
            false => self,
        }
    }
}

/// The result of a fetch.
#[derive(Debug, Clone, Default)]
pub struct Fetched {
    /// The records in offset order, from the requested offset on. Offsets may have gaps.
    pub records: Vec<FetchedRecord>,
    /// The offset of the next fetch. It is past the records, and past offsets that hold no record, such as the marker at
    /// the end of a Kafka transaction.
    pub next_offset: i64,
    /// The leader epoch of the last record or marker before `next_offset`. None if none was read, or without Kafka.
    pub leader_epoch: Option<i32>,
    /// The offset of the next record of the partition.
    pub high_watermark: i64,
}

/// The first offset of a partition and the offset of its next record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetRange {
    /// The first offset (inclusive).
    pub earliest: i64,
    /// The offset of the next record (exclusive).
    pub latest: i64,
}

/// A broker.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Checks that the topics exist with enough partitions; creates missing ones if `create` is set.
    async fn ensure_topics(&self, topics: &[TopicSpec], create: bool) -> Result<(), BrokerError>;

    /// Returns the identity of the broker, and the current number of partitions of each topic that exists. The answer is
    /// never cached.
    async fn identify(&self, topics: &[String]) -> Result<BrokerState, BrokerError>;

    /// Returns the number of partitions of a topic. The first answer holds as long as the process runs, because the
    /// partition of a key must not change.
    async fn partitions(&self, topic: &str) -> Result<i32, BrokerError>;

    /// Publishes the records in order to one partition and returns when all are durable. After an error some may be
    /// durable nevertheless. The caller publishes them again, and consumers drop the duplicates.
    async fn produce(
        &self,
        topic: &str,
        partition: i32,
        records: Vec<OutgoingRecord>,
    ) -> Result<(), BrokerError>;

    /// Reads records from `offset` on, in the current log of the partition. See [`Broker::fetch_from`].
    async fn fetch(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        bytes_max: usize,
        wait_max: Duration,
    ) -> Result<Fetched, BrokerError> {
        self.fetch_from(topic, partition, LogOffset::unchecked(offset), bytes_max, wait_max).await
    }

    /// Reads records, up to about `bytes_max` bytes, and waits at most `wait_max` for the first record. A broker that
    /// throttles the client adds to this wait. A fetch at the high watermark returns no records; a fetch beyond it, or
    /// before the first record, fails with [`BrokerError::OffsetOutOfRange`]. If `from` belongs to
    /// another log, the fetch fails with [`BrokerError::LogReplaced`] or [`BrokerError::LogTruncated`], however long the
    /// log is.
    async fn fetch_from(
        &self,
        topic: &str,
        partition: i32,
        from: LogOffset,
        bytes_max: usize,
        wait_max: Duration,
    ) -> Result<Fetched, BrokerError>;

    /// Returns the id of the log of a partition. A log that is deleted and created again gets another id. None if the
    /// broker has no ids.
    async fn log_id(&self, topic: &str, partition: i32) -> Result<Option<Uuid>, BrokerError>;

    /// Returns the first offset of the partition and the offset of its next record.
    async fn offset_range(&self, topic: &str, partition: i32) -> Result<OffsetRange, BrokerError>;

    /// Returns the offset of the first record published at `moment` or later, or the end if there is none.
    async fn offset_at(&self, topic: &str, partition: i32, moment: DateTime<Utc>)
    -> Result<i64, BrokerError>;

    /// Describes a topic, or returns `None` if it does not exist.
    async fn describe_topic(&self, topic: &str) -> Result<Option<TopicState>, BrokerError>;

    /// Removes records beyond the retention of the topics and returns their number. Kafka does this by itself.
    async fn enforce_retention(&self, _topics: &[TopicSpec]) -> Result<u64, BrokerError> {
        Ok(0)
    }

    /// Copies the positions of a group to the broker, for the broker's own tools. Best effort: no result depends on it.
    async fn mirror_positions(
        &self,
        group: &str,
        topic: &str,
        positions: &[(i32, i64)],
    ) -> Result<(), BrokerError>;
}

/// A broker that several tasks share.
pub type SharedBroker = Arc<dyn Broker>;

/// Connects to the broker that `broker.kind` names. The PostgreSQL broker uses `pool`.
pub async fn connect(config: &Config, pool: Pool) -> Result<SharedBroker, BrokerError> {
    Ok(match config.broker.kind {
        BrokerKind::Postgres => Arc::new(PostgresBroker::new(pool)),
        BrokerKind::Kafka => Arc::new(KafkaBroker::connect(&config.broker.kafka).await?),
    })
}

/// Returns every topic of the project as the configuration wants it.
pub fn topic_specs(config: &Config) -> Vec<TopicSpec> {
    let topics = &config.broker.topics;
    let transactions = Retention::new(topics.transactions_retention, topics.transactions_retention_bytes);
    let assessments =
        Retention::new(topics.risk_assessments_retention, topics.risk_assessments_retention_bytes);
    let dead_letters = Retention::new(topics.dead_letters_retention, topics.dead_letters_retention_bytes);
    [
        (TRANSACTIONS_TOPIC, topics.transactions_partitions, transactions),
        (RISK_ASSESSMENTS_TOPIC, topics.risk_assessments_partitions, assessments),
        (TRANSACTIONS_DEAD_LETTER_TOPIC, topics.dead_letters_partitions, dead_letters),
    ]
    .map(|(name, partitions, retention)| TopicSpec {
        name: name.to_owned(),
        partitions,
        replication_factor: topics.replication_factor,
        min_insync_replicas: topics.min_insync_replicas,
        retention,
    })
    .into()
}
