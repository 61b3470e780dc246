//! Where events go and come from, behind one trait with two real implementations.
//!
//! Promises every broker keeps: `produce` answers only when the records are durable (`acks=all`, or a commit);
//! records of one call keep their order within the partition; offsets rise; a read never skips a record that was
//! durable before one it returned. Duplicates may appear after a lost acknowledgement. Every call ends: each has a
//! time limit of its own. This is the only module that knows Kafka's protocol.

mod kafka;
mod postgres;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

pub use kafka::KafkaBroker;
pub use postgres::PostgresBroker;

use crate::{
    config::{BrokerKind, Config},
    event::{Headers, RISK_ASSESSMENTS_TOPIC, TRANSACTIONS_DEAD_LETTER_TOPIC, TRANSACTIONS_TOPIC},
    repository::Pool,
};

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// At least this many partitions.
    pub partitions: i32,
    /// Kafka only.
    pub replication_factor: i16,
    /// Kafka only.
    pub min_insync_replicas: i16,
    /// How long its records stay.
    pub retention: Retention,
}

impl TopicSpec {
    /// A topic on one broker whose records stay for ever.
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

/// What is removed from the front of a partition: whatever either bound says. By default nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Records older than this.
    pub age: Option<Duration>,
    /// The first records of a partition that holds more bytes than this.
    pub bytes: Option<u64>,
}

impl Retention {
    /// As the configuration says it: zero is no bound.
    pub fn new(age: Duration, bytes: u64) -> Self {
        Self { age: (!age.is_zero()).then_some(age), bytes: (bytes > 0).then_some(bytes) }
    }
}

/// A topic as it is. What the broker does not tell, or does not have, is None.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicState {
    /// How many partitions.
    pub partitions: i32,
    /// Of its first partition.
    pub replication_factor: Option<i16>,
    /// Replicas that must have a record before it counts as published.
    pub min_insync_replicas: Option<i16>,
    /// How long its records stay.
    pub retention: Option<Retention>,
}

/// A record to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingRecord {
    /// Decides the partition, before it comes here.
    pub key: Option<Bytes>,
    /// None is a tombstone.
    pub value: Option<Bytes>,
    /// In order.
    pub headers: Headers,
    /// When it is published: brokers measure retention by it. When it happened is for the event to say.
    pub timestamp: DateTime<Utc>,
}

/// A record as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedRecord {
    /// Position in the partition.
    pub offset: i64,
    /// As published.
    pub key: Option<Bytes>,
    /// As published.
    pub value: Option<Bytes>,
    /// As published.
    pub headers: Headers,
    /// As published.
    pub timestamp: DateTime<Utc>,
}

/// What a fetch found.
#[derive(Debug, Clone, Default)]
pub struct Fetched {
    /// In offset order, all at or after the offset asked for. Offsets may have gaps.
    pub records: Vec<FetchedRecord>,
    /// Where to read on: behind the records, and behind what is none, like the mark at the end of a transaction.
    pub next_offset: i64,
    /// The offset that the next record of the partition will get.
    pub high_watermark: i64,
}

/// First offset still there, and the one that the next record will get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetRange {
    /// Inclusive.
    pub earliest: i64,
    /// Exclusive.
    pub latest: i64,
}

/// Why the broker did not do it, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Trouble that passes: no connection, a time-out, an election. Try again.
    #[error("the broker is not available: {detail}")]
    Unavailable {
        /// What happened.
        detail: String,
    },
    /// The broker will never take one of these records.
    #[error("the broker refuses a record as too large")]
    RecordTooLarge,
    /// The broker will never take one of these records, for what it is and not for its size.
    #[error("the broker refuses a record for good: {detail}")]
    RecordInvalid {
        /// What it said.
        detail: String,
    },
    /// The offset is outside what the partition holds (retention took it, or the topic was made anew).
    #[error("offset {offset} of {topic}/{partition} is outside {earliest}..{latest}")]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// What was asked for.
        offset: i64,
        /// First one there, −1 if unknown.
        earliest: i64,
        /// Next one, −1 if unknown.
        latest: i64,
    },
    /// The topic is not there.
    #[error("topic {0} does not exist; create it, or set broker.create_topics = true")]
    NoSuchTopic(String),
    /// The topic is there with fewer partitions than configured.
    #[error(
        "topic {topic} has {actual} partitions, but the configuration expects at least {expected}; add partitions or lower broker.topics"
    )]
    TooFewPartitions {
        /// The topic.
        topic: String,
        /// What it has.
        actual: i32,
        /// What was expected.
        expected: i32,
    },
    /// Wrong credentials, no permission, an unsupported version: trying again does not help.
    #[error("the broker refuses: {detail}")]
    Refused {
        /// What it said.
        detail: String,
    },
}

impl BrokerError {
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Whether a single record is refused, while the others of the call may be taken.
    pub fn concerns_a_record(&self) -> bool {
        matches!(self, Self::RecordTooLarge | Self::RecordInvalid { .. })
    }

    /// Returns whether the connection and the broker are healthy after this error.
    fn leaves_connection_usable(&self) -> bool {
        self.concerns_a_record() || matches!(self, Self::OffsetOutOfRange { .. })
    }
}

/// A broker. Cheap to share.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Creates the topics that are missing if `create` says so, and checks the others.
    async fn ensure_topics(&self, topics: &[TopicSpec], create: bool) -> Result<(), BrokerError>;

    /// How many partitions a topic has. Cached by the implementation where that is safe.
    async fn partitions(&self, topic: &str) -> Result<i32, BrokerError>;

    /// Publishes the records in order to one partition and returns when they are durable. Either all are durable or
    /// the error says why not (some may be durable all the same: publish again, consumers drop duplicates).
    async fn produce(
        &self,
        topic: &str,
        partition: i32,
        records: Vec<OutgoingRecord>,
    ) -> Result<(), BrokerError>;

    /// Reads from `offset` on, up to about `bytes_max`, waiting at most `wait_max` for the first record. Reading at
    /// the high watermark gives no records; beyond it, or before the first one there, gives
    /// [`BrokerError::OffsetOutOfRange`].
    async fn fetch(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        bytes_max: usize,
        wait_max: Duration,
    ) -> Result<Fetched, BrokerError>;

    /// What the partition holds.
    async fn offset_range(&self, topic: &str, partition: i32) -> Result<OffsetRange, BrokerError>;

    /// The offset of the first record that is not older than `moment`, or the end if there is none.
    async fn offset_at(&self, topic: &str, partition: i32, moment: DateTime<Utc>)
    -> Result<i64, BrokerError>;

    /// How the topic is, or None if there is none.
    async fn describe_topic(&self, topic: &str) -> Result<Option<TopicState>, BrokerError>;

    /// Removes what the topics' retention lets go, where the broker does not do so by itself; answers how many records.
    async fn enforce_retention(&self, _topics: &[TopicSpec]) -> Result<u64, BrokerError> {
        Ok(0)
    }

    /// Shows a group's position to the broker's own tools, where it has such. Best effort, never on the path.
    async fn mirror_positions(
        &self,
        group: &str,
        topic: &str,
        positions: &[(i32, i64)],
    ) -> Result<(), BrokerError>;
}

/// A shared broker.
pub type SharedBroker = Arc<dyn Broker>;

/// The broker that `broker.kind` names. `pool` is for the one that is a table.
pub async fn connect(config: &Config, pool: Pool) -> Result<SharedBroker, BrokerError> {
    Ok(match config.broker.kind {
        BrokerKind::Postgres => Arc::new(PostgresBroker::new(pool)),
        BrokerKind::Kafka => Arc::new(KafkaBroker::connect(&config.broker.kafka).await?),
    })
}

/// Every topic of the project as the configuration wants it.
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
