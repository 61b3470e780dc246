//! Apache Kafka by its wire protocol: idempotence is the consumers', order per partition is ours.
//!
//! Messages are encoded by `kafka-protocol`; record batches, connections and what to do about errors are here, because
//! what is sent and read is millions of small records, each byte of which counts and has to survive.
//!
//! Guarantees: each request ends within `broker.kafka.request_timeout` (plus the wait that a fetch asks for), whatever
//! the network does; a call is one, or a few where it asks for both ends or why an offset is out of range. A connection is
//! dropped after trouble, so a call never meets a half-dead one twice. Headers keep their order, and names may repeat.
//! Deliberately absent: transactions and consumer groups.

mod admin;
mod compression;
mod connections;
mod describe;
mod handshake;
mod mirror;
mod partition;
mod record_batch;
mod refusal;
mod security;
mod topics;
mod wire;

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use self::{
    compression::Codec,
    connections::{Idle, Leaders, Line},
    partition::{EARLIEST, LATEST},
    security::Security,
};
use super::{Broker, BrokerError, Fetched, OffsetRange, OutgoingRecord, TopicSpec, TopicState};
use crate::config::Kafka;

/// Kafka.
pub struct KafkaBroker {
    settings: Kafka,
    servers: Vec<String>,
    security: Security,
    codec: Codec,
    idle: Mutex<HashMap<Line, Idle>>,
    leaders: Mutex<HashMap<String, Leaders>>,
    answered_last: Mutex<Option<String>>,
    asking_for_leaders: tokio::sync::Mutex<()>,
    /// Kafka never takes partitions away, and a key's partition must not change while we run.
    partition_counts: Mutex<HashMap<String, i32>>,
    coordinators: Mutex<HashMap<String, String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KafkaBroker {
    /// Connects to the cluster, or says why that is not possible, within `broker.kafka.connect_timeout`.
    pub async fn connect(settings: &Kafka) -> Result<Self, BrokerError> {
        let servers: Vec<String> =
            settings.bootstrap_servers.split(',').map(|server| server.trim().to_owned()).collect();
        let security = Security::from_config(settings)?;
        let broker = Self {
            settings: settings.clone(),
            servers,
            security,
            codec: Codec::named(&settings.compression),
            idle: Mutex::default(),
            leaders: Mutex::default(),
            answered_last: Mutex::default(),
            asking_for_leaders: tokio::sync::Mutex::default(),
            partition_counts: Mutex::default(),
            coordinators: Mutex::default(),
        };
        broker.check_connection().await?;
        Ok(broker)
    }
}

#[async_trait]
impl Broker for KafkaBroker {
    async fn ensure_topics(&self, topics: &[TopicSpec], create: bool) -> Result<(), BrokerError> {
        for topic in topics {
            self.bounded(self.settings.request_timeout, self.ensure(topic, create)).await?;
        }
        Ok(())
    }

    async fn partitions(&self, topic: &str) -> Result<i32, BrokerError> {
        let known = lock(&self.partition_counts).get(topic).copied();
        if let Some(count) = known {
            return Ok(count);
        }
        let count = self.bounded(Duration::ZERO, self.count_partitions(topic)).await?;
        let count = count.ok_or_else(|| BrokerError::NoSuchTopic(topic.to_owned()))?;
        lock(&self.partition_counts).insert(topic.to_owned(), count);
        Ok(count)
    }

    async fn produce(
        &self,
        topic: &str,
        partition: i32,
        records: Vec<OutgoingRecord>,
    ) -> Result<(), BrokerError> {
        self.produce_to(topic, partition, &records, self.codec).await
    }

    async fn fetch(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        bytes_max: usize,
        wait_max: Duration,
    ) -> Result<Fetched, BrokerError> {
        match self.fetch_from(topic, partition, offset, bytes_max, wait_max).await {
            Err(BrokerError::OffsetOutOfRange { .. }) => {
                let range = self.offset_range(topic, partition).await;
                let range = range.unwrap_or(OffsetRange { earliest: -1, latest: -1 });
                let OffsetRange { earliest, latest } = range;
                Err(BrokerError::OffsetOutOfRange {
                    topic: topic.to_owned(),
                    partition,
                    offset,
                    earliest,
                    latest,
                })
            }
            outcome => outcome,
        }
    }

    async fn offset_range(&self, topic: &str, partition: i32) -> Result<OffsetRange, BrokerError> {
        let earliest = self.offset_of(topic, partition, EARLIEST).await?.unwrap_or(0);
        let latest = self.offset_of(topic, partition, LATEST).await?.unwrap_or(0);
        Ok(OffsetRange { earliest, latest })
    }

    async fn offset_at(
        &self,
        topic: &str,
        partition: i32,
        moment: DateTime<Utc>,
    ) -> Result<i64, BrokerError> {
        match self.offset_of(topic, partition, moment.timestamp_millis()).await? {
            Some(offset) => Ok(offset),
            None => Ok(self.offset_of(topic, partition, LATEST).await?.unwrap_or(0)),
        }
    }

    async fn describe_topic(&self, topic: &str) -> Result<Option<TopicState>, BrokerError> {
        self.bounded(Duration::ZERO, async { describe::topic(&mut self.wire().await?, topic).await }).await
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
        self.bounded(Duration::ZERO, self.mirror(group, topic, positions)).await
    }
}
