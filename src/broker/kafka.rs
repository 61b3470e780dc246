//! Apache Kafka through rskafka: idempotence is the consumers', order per partition is ours.
//!
//! Guarantees: every call ends within `broker.kafka.request_timeout` (plus the wait that a fetch asks for), whatever
//! the network does; rskafka alone would wait for ever. A partition's client is dropped after an error, so a call
//! never meets a half-dead connection twice. Headers with the same name collapse into the last one, and header order
//! is by name: rskafka keeps them in a map. Deliberately absent: transactions and consumer groups.

mod admin;
mod describe;
mod handshake;
mod refusal;
mod security;
mod wire;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rskafka::{
    BackoffConfig,
    client::{
        Client, ClientBuilder,
        error::Error,
        partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling},
    },
    record::{Record, RecordAndOffset},
};
use tokio::time::{Instant, sleep, timeout};

use self::{refusal::broker_error, security::Security, wire::Wire};
use super::{
    Broker, BrokerError, Fetched, FetchedRecord, OffsetRange, OutgoingRecord, Retention, TopicSpec,
    TopicState,
};
use crate::config::Kafka;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How often to look whether a new topic is known everywhere.
const TOPIC_LOOK_INTERVAL: Duration = Duration::from_millis(50);

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

    /// The cluster's client, made anew where the last one fell silent.
    async fn client(&self) -> Result<Arc<Client>, BrokerError> {
        let mut current = self.client.lock().await;
        if let Some(client) = &*current {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(self.build_client().await?);
        *current = Some(Arc::clone(&client));
        Ok(client)
    }

    async fn build_client(&self) -> Result<Client, BrokerError> {
        let settings = &self.settings;
        let connecting = async {
            // rskafka would try a wrong password or certificate again and again and then not say what it was, and it
            // would wait for ever for the first server that is silent. So it is told of one that answers.
            let wire = self.wire().await?;
            let mut builder = ClientBuilder::new(vec![wire.address().to_owned()])
                .client_id(settings.client_id.as_str())
                .backoff_config(backoff(settings.request_timeout.min(settings.connect_timeout)));
            if let Some(tls) = &self.security.tls {
                builder = builder.tls_config(Arc::clone(tls));
            }
            if let Some(sasl) = &self.security.sasl {
                builder = builder.sasl_config(sasl.clone());
            }
            builder.build().await.map_err(|error| broker_error("", &error))
        };
        let outcome = timeout(settings.connect_timeout, connecting).await.unwrap_or_else(|_| {
            let detail = format!("no answer within {:?}", settings.connect_timeout);
            Err(BrokerError::Unavailable { detail })
        });
        outcome.map_err(|error| match error {
            BrokerError::Unavailable { detail } => BrokerError::Unavailable {
                detail: format!(
                    "no Kafka at {} (broker.kafka.bootstrap_servers): {detail}",
                    settings.bootstrap_servers
                ),
            },
            refused => refused,
        })
    }

    async fn wire(&self) -> Result<Wire, BrokerError> {
        self.wire_to(&self.servers).await
    }

    async fn wire_to(&self, addresses: &[String]) -> Result<Wire, BrokerError> {
        let settings = &self.settings;
        Wire::open(addresses, &self.security, &settings.client_id, settings.connect_timeout).await
    }

    /// A connection that fell silent may be dead without anybody having said so, and rskafka would keep it.
    fn forget_connections(&self) {
        // Whoever is making a new client holds the lock; nothing is to be forgotten then.
        if let Ok(mut current) = self.client.try_lock() {
            *current = None;
            lock(&self.partition_clients).clear();
        }
    }

    /// Runs a call with an end. `extra` is time that the call spends waiting on purpose.
    async fn bounded<T>(
        &self,
        extra: Duration,
        call: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let limit = self.settings.request_timeout + extra;
        match timeout(limit, call).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.forget_connections();
                Err(BrokerError::Unavailable { detail: format!("no answer from Kafka within {limit:?}") })
            }
        }
    }

    async fn partition_client(
        &self,
        topic: &str,
        partition: i32,
        purpose: Purpose,
    ) -> Result<Arc<PartitionClient>, BrokerError> {
        let key = (topic.to_owned(), partition, purpose);
        let known = lock(&self.partition_clients).get(&key).cloned();
        if let Some(client) = known {
            return Ok(client);
        }
        let client =
            self.client().await?.partition_client(topic, partition, UnknownTopicHandling::Error).await;
        let client = Arc::new(client.map_err(|error| broker_error(topic, &error))?);
        lock(&self.partition_clients).insert(key, Arc::clone(&client));
        Ok(client)
    }

    /// Runs a call on the partition's client, and drops the client if the call fails in a way that may be its fault.
    async fn on_partition<T, Call, Answer>(
        &self,
        topic: &str,
        partition: i32,
        purpose: Purpose,
        extra: Duration,
        call: Call,
    ) -> Result<T, BrokerError>
    where
        Call: FnOnce(Arc<PartitionClient>) -> Answer,
        Answer: Future<Output = Result<T, Error>>,
    {
        let outcome = self
            .bounded(extra, async {
                let client = self.partition_client(topic, partition, purpose).await?;
                call(client).await.map_err(|error| broker_error(topic, &error))
            })
            .await;
        match outcome {
            Err(error @ BrokerError::OffsetOutOfRange { .. }) => Err(error),
            Err(error) if error.is_about_a_record() => Err(error),
            Err(error) => {
                lock(&self.partition_clients).remove(&(topic.to_owned(), partition, purpose));
                Err(self.confirmed(topic, partition, error).await)
            }
            Ok(value) => Ok(value),
        }
    }

    /// A broker that has just started may not know its topics yet: a topic or partition is gone for good only if the
    /// cluster says so.
    async fn confirmed(&self, topic: &str, partition: i32, error: BrokerError) -> BrokerError {
        if !matches!(error, BrokerError::NoSuchTopic(_)) {
            return error;
        }
        match self.bounded(Duration::ZERO, self.count_partitions(topic)).await {
            Ok(None) => error,
            Ok(Some(actual)) if actual <= partition => {
                BrokerError::TooFewPartitions { topic: topic.to_owned(), actual, expected: partition + 1 }
            }
            _ => BrokerError::Unavailable { detail: format!("topic {topic} is not known everywhere yet") },
        }
    }

    async fn count_partitions(&self, topic: &str) -> Result<Option<i32>, BrokerError> {
        let found = describe::layout(&mut self.wire().await?, topic).await?;
        Ok(found.map(|state| state.partitions))
    }

    async fn ensure(&self, topic: &TopicSpec, create: bool) -> Result<(), BrokerError> {
        let actual = match self.count_partitions(&topic.name).await? {
            Some(actual) => actual,
            None if create => {
                self.create(topic).await?;
                self.wait_until_known(topic).await?
            }
            None => return Err(BrokerError::NoSuchTopic(topic.name.clone())),
        };
        if actual < topic.partitions {
            return Err(BrokerError::TooFewPartitions {
                topic: topic.name.clone(),
                actual,
                expected: topic.partitions,
            });
        }
        Ok(())
    }

    async fn create(&self, topic: &TopicSpec) -> Result<(), BrokerError> {
        let timeout_ms = i32::try_from(self.settings.request_timeout.as_millis()).unwrap_or(i32::MAX);
        admin::create_topic(&mut self.wire().await?, topic, timeout_ms).await
    }

    async fn wait_until_known(&self, topic: &TopicSpec) -> Result<i32, BrokerError> {
        let patience_ends = Instant::now() + self.settings.request_timeout;
        loop {
            match self.count_partitions(&topic.name).await? {
                Some(actual) if actual >= topic.partitions => return Ok(actual),
                found if Instant::now() >= patience_ends => return Ok(found.unwrap_or(0)),
                _ => sleep(TOPIC_LOOK_INTERVAL).await,
            }
        }
    }

    async fn coordinator(&self, group: &str) -> Result<String, BrokerError> {
        let known = lock(&self.coordinators).get(group).cloned();
        if let Some(coordinator) = known {
            return Ok(coordinator);
        }
        let coordinator = admin::find_coordinator(&mut self.wire().await?, group).await?;
        lock(&self.coordinators).insert(group.to_owned(), coordinator.clone());
        Ok(coordinator)
    }

    async fn mirror(&self, group: &str, topic: &str, positions: &[(i32, i64)]) -> Result<(), BrokerError> {
        let coordinator = self.coordinator(group).await?;
        let outcome = async {
            let mut wire = self.wire_to(&[coordinator]).await?;
            admin::commit_positions(&mut wire, group, topic, positions).await
        }
        .await;
        if outcome.is_err() {
            lock(&self.coordinators).remove(group);
        }
        outcome
    }
}

/// rskafka counts only its waits against the deadline; the time limit around each call does the rest.
fn backoff(deadline: Duration) -> BackoffConfig {
    BackoffConfig { init_backoff: BACKOFF_MIN, max_backoff: BACKOFF_MAX, base: 2.0, deadline: Some(deadline) }
}

/// The configuration has been checked to hold one of these.
fn compression(name: &str) -> Compression {
    match name {
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => Compression::NoCompression,
    }
}

fn outgoing(record: OutgoingRecord) -> Record {
    Record {
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().collect(),
        timestamp: record.timestamp,
    }
}

fn fetched(found: RecordAndOffset) -> FetchedRecord {
    FetchedRecord {
        offset: found.offset,
        key: found.record.key,
        value: found.record.value,
        headers: found.record.headers.into_iter().collect(),
        timestamp: found.record.timestamp,
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
