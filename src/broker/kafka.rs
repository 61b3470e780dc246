//! Apache Kafka through rskafka: idempotence is the consumers', order per partition is ours.
//!
//! Guarantees: every call ends within `broker.kafka.request_timeout` (plus the wait that a fetch asks for), whatever
//! the network does; rskafka alone would wait for ever. A partition's client is dropped after an error, so a call
//! never meets a half-dead connection twice. Headers with the same name collapse into the last one, and header order
//! is by name: rskafka keeps them in a map. Deliberately absent: transactions and consumer groups.

mod admin;
mod connections;
mod describe;
mod handshake;
mod mirror;
mod record;
mod refusal;
mod security;
mod topics;
mod wire;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rskafka::{
    client::{
        Client,
        partition::{Compression, OffsetAt, PartitionClient},
    },
    record::Record,
};

use self::{
    record::{compression, fetched, outgoing},
    security::Security,
};
use super::{Broker, BrokerError, Fetched, OffsetRange, OutgoingRecord, TopicSpec, TopicState};
use crate::config::Kafka;

/// A client answers one request after the other, so a read that waits for records would hold up a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    Prompt,
    Waiting,
}

/// Kafka.
pub struct KafkaBroker {
    settings: Kafka,
    servers: Vec<String>,
    security: Security,
    compression: Compression,
    client: tokio::sync::Mutex<Option<Arc<Client>>>,
    partition_clients: Mutex<HashMap<(String, i32, Purpose), Arc<PartitionClient>>>,
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
            compression: compression(&settings.compression),
            client: tokio::sync::Mutex::default(),
            partition_clients: Mutex::default(),
            partition_counts: Mutex::default(),
            coordinators: Mutex::default(),
        };
        broker.client().await?;
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
        let records: Vec<Record> = records.into_iter().map(outgoing).collect();
        let compression = self.compression;
        self.on_partition(topic, partition, Purpose::Prompt, Duration::ZERO, |client| async move {
            client.produce(records, compression).await
        })
        .await?;
        Ok(())
    }

    async fn fetch(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        bytes_max: usize,
        wait_max: Duration,
    ) -> Result<Fetched, BrokerError> {
        let bytes_max = i32::try_from(bytes_max).unwrap_or(i32::MAX).max(2);
        let wait_ms = i32::try_from(wait_max.as_millis()).unwrap_or(i32::MAX);
        let outcome = self
            .on_partition(topic, partition, Purpose::Waiting, wait_max, |client| async move {
                client.fetch_records(offset, 1..bytes_max, wait_ms).await
            })
            .await;
        match outcome {
            Ok((records, high_watermark)) => {
                Ok(Fetched { records: records.into_iter().map(fetched).collect(), high_watermark })
            }
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
            Err(error) => Err(error),
        }
    }

    async fn offset_range(&self, topic: &str, partition: i32) -> Result<OffsetRange, BrokerError> {
        self.on_partition(topic, partition, Purpose::Prompt, Duration::ZERO, |client| async move {
            let earliest = client.get_offset(OffsetAt::Earliest).await?;
            let latest = client.get_offset(OffsetAt::Latest).await?;
            Ok(OffsetRange { earliest, latest })
        })
        .await
    }

    async fn offset_at(
        &self,
        topic: &str,
        partition: i32,
        moment: DateTime<Utc>,
    ) -> Result<i64, BrokerError> {
        self.on_partition(topic, partition, Purpose::Prompt, Duration::ZERO, |client| async move {
            // Kafka answers −1 if there is no such record.
            match client.get_offset(OffsetAt::Timestamp(moment)).await? {
                found if found >= 0 => Ok(found),
                _ => client.get_offset(OffsetAt::Latest).await,
            }
        })
        .await
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
