//! Apache Kafka over its wire protocol.
//!
//! ```text
//! KafkaBroker ─┬─▶ Partition ──────▶ LeaderConnections ─┬─▶ Metadata ─┬─▶ Connector ──▶ Connection
//!              │   produce, fetch,   retry, time limit, │   leaders   │   TCP, TLS,     one request
//!              │   offsets           quota              └─────────────┤   SASL          at a time
//!              ├─▶ Topics            describe, create ────────────────┤
//!              └─▶ GroupPositions    for Kafka's own tools ───────────┘
//! ```
//!
//! The crate `kafka-protocol` encodes the messages. Record batches, connections and the handling of errors are written
//! here, because millions of small records pass through them and every byte of a foreign record must survive.
//!
//! Guarantees:
//!
//! - Each request ends within `broker.kafka.request_timeout`, plus the wait that a fetch asks for, plus the waits for a
//!   quota. The waits for a quota have no limit. Most calls are one request; a call that needs both ends of a partition,
//!   or explains an offset out of range, makes up to three.
//! - A connection is closed after an error, so no call meets a broken connection twice.
//! - All connections lead to one cluster: a broker of another cluster is refused when the connection is opened.
//! - Headers keep their order, and names may repeat.
//! - A fetch that knows its log names the topic by its id and says which leader wrote the record before its offset. The
//!   broker compares both with its log at every fetch, so a topic that was created again, or a log that lost its end, is
//!   never read as if nothing had happened. Brokers before Kafka 3.1 cannot compare.
//!
//! Deliberately absent: an idempotent or transactional producer, because consumers drop duplicates; and consumer
//! groups, because positions are kept in PostgreSQL beside the results.

mod compression;
mod connect;
mod connection;
mod deadline;
mod errors;
mod group_positions;
mod leader_connections;
mod metadata;
mod partition;
mod record_batch;
mod requests;
mod topics;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use self::{
    connect::Connector, deadline::Deadline, group_positions::GroupPositions,
    leader_connections::LeaderConnections, metadata::Metadata, partition::Partition, topics::Topics,
};
use super::{
    Broker, BrokerError, BrokerIdentity, BrokerState, Fetched, LogOffset, OffsetRange, OutgoingRecord,
    TopicSpec, TopicState,
};
use crate::config::{BrokerKind, Compression, Kafka};

/// A Kafka cluster.
pub struct KafkaBroker {
    request_timeout: Duration,
    compression: Compression,
    connector: Arc<Connector>,
    metadata: Arc<Metadata>,
    topics: Topics,
    leaders: LeaderConnections,
    group_positions: GroupPositions,
    /// Kafka never removes partitions, and the partition of a key must not change while the process runs.
    partition_counts: Mutex<HashMap<String, i32>>,
}

impl KafkaBroker {
    /// Connects to the cluster, or fails within `broker.kafka.connect_timeout`.
    pub async fn connect(settings: &Kafka) -> Result<Self, BrokerError> {
        let connector = Arc::new(Connector::new(settings)?);
        let request_timeout = settings.request_timeout;
        let metadata = Arc::new(Metadata::new(Arc::clone(&connector), request_timeout));
        connector.connect_to_any().await.map_err(|error| match error {
            BrokerError::Unavailable { detail } => {
                let servers = &settings.bootstrap_servers;
                let detail = format!("no Kafka at {servers} (broker.kafka.bootstrap_servers): {detail}");
                BrokerError::Unavailable { detail }
            }
            refused => refused,
        })?;
        Ok(Self {
            request_timeout,
            compression: settings.compression,
            topics: Topics::new(Arc::clone(&connector), Arc::clone(&metadata), request_timeout),
            leaders: LeaderConnections::new(Arc::clone(&connector), Arc::clone(&metadata), request_timeout),
            metadata,
            group_positions: GroupPositions::new(Arc::clone(&connector)),
            connector,
            partition_counts: Mutex::default(),
        })
    }

    fn partition<'a>(&'a self, topic: &'a str, number: i32) -> Partition<'a> {
        Partition::new(&self.leaders, &self.metadata, topic, number)
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.request_timeout)
    }
}

#[async_trait]
impl Broker for KafkaBroker {
    async fn ensure_topics(&self, topics: &[TopicSpec], create: bool) -> Result<(), BrokerError> {
        for topic in topics {
            // A topic that has to be created takes two steps.
            let deadline = Deadline::after(self.request_timeout * 2);
            deadline.limit(self.topics.ensure(topic, create)).await?;
        }
        Ok(())
    }

    async fn identify(&self, topics: &[String]) -> Result<BrokerState, BrokerError> {
        let partitions = self.deadline().limit(self.metadata.partition_counts(topics)).await?;
        let cluster_id = self.connector.cluster_id();
        Ok(BrokerState { identity: BrokerIdentity { kind: BrokerKind::Kafka, cluster_id }, partitions })
    }

    async fn partitions(&self, topic: &str) -> Result<i32, BrokerError> {
        let known = self.partition_counts.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied();
        if let Some(count) = known {
            return Ok(count);
        }
        let count = self.deadline().limit(self.metadata.partition_count(topic)).await?;
        let count = count.ok_or_else(|| BrokerError::NoSuchTopic(topic.to_owned()))?;
        let mut counts = self.partition_counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.insert(topic.to_owned(), count);
        Ok(count)
    }

    async fn produce(
        &self,
        topic: &str,
        partition: i32,
        records: Vec<OutgoingRecord>,
    ) -> Result<(), BrokerError> {
        self.partition(topic, partition).produce(&records, self.compression).await
    }

    async fn fetch_from(
        &self,
        topic: &str,
        partition: i32,
        from: LogOffset,
        bytes_max: usize,
        wait_max: Duration,
    ) -> Result<Fetched, BrokerError> {
        self.partition(topic, partition).fetch(from, bytes_max, wait_max).await
    }

    async fn log_id(&self, topic: &str, _partition: i32) -> Result<Option<Uuid>, BrokerError> {
        self.deadline().limit(self.metadata.topic_id(topic)).await
    }

    async fn offset_range(&self, topic: &str, partition: i32) -> Result<OffsetRange, BrokerError> {
        self.partition(topic, partition).offset_range().await
    }

    async fn offset_at(
        &self,
        topic: &str,
        partition: i32,
        moment: DateTime<Utc>,
    ) -> Result<i64, BrokerError> {
        self.partition(topic, partition).offset_at(moment.timestamp_millis()).await
    }

    async fn describe_topic(&self, topic: &str) -> Result<Option<TopicState>, BrokerError> {
        self.deadline().limit(self.topics.describe(topic)).await
    }

    async fn mirror_positions(
        &self,
        group: &str,
        topic: &str,
        positions: &[(i32, i64)],
    ) -> Result<(), BrokerError> {
        if positions.is_empty() {
            return Ok(());
        }
        self.deadline().limit(self.group_positions.commit(group, topic, positions)).await
    }
}
