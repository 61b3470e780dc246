//! A broker whose topics are rows of a PostgreSQL table, for installations without Kafka.
//!
//! A record is durable when its database transaction has committed. A fetch polls the table.
//!
//! Guarantees: retention never removes a record that a group with a position has not handled yet. It runs when it is
//! called; the relay calls it every minute. A partition that was deleted and created again has another log id.
//! Deliberately absent: copies of positions for other tools, because `ledger consumers` shows positions and lag.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::{
    Broker, BrokerError, BrokerIdentity, BrokerState, Fetched, FetchedRecord, LogOffset, OffsetRange,
    OutgoingRecord, Retention, TopicSpec, TopicState,
};
use crate::{
    config::BrokerKind,
    event::Headers,
    repository::{
        self, Pool, PooledConnection, RepositoryError,
        broker_records::{self, NewRecords, StoredRange, StoredRecord},
    },
};

/// The time limit of one call. The wait of a fetch is added to it.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The wait between two polls of a partition without new records grows from the minimum to the maximum.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(5);
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(50);
/// The most records of one fetch.
const FETCH_COUNT_MAX: i64 = 10_000;
/// The most records that one database transaction removes, so that it stays short.
const REMOVAL_COUNT_MAX: i64 = 5_000;

/// Topics in a PostgreSQL table.
pub struct PostgresBroker {
    pool: Pool,
    /// The number of partitions of each known topic. It never changes while the process runs.
    partitions: Mutex<HashMap<String, i32>>,
}

enum Poll {
    Found(Fetched),
    Empty { high_watermark: i64 },
}

impl PostgresBroker {
    /// Creates a broker that takes a connection from the pool for each call.
    pub fn new(pool: Pool) -> Self {
        Self { pool, partitions: Mutex::default() }
    }

    async fn connection(&self) -> Result<PooledConnection, BrokerError> {
        repository::pooled(&self.pool).await.map_err(broker_error)
    }

    async fn count_partitions(&self, topic: &str) -> Result<i32, BrokerError> {
        let mut connection = self.connection().await?;
        let count = broker_records::partitions(&mut connection, topic).await.map_err(broker_error)?;
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }

    async fn ensure(&self, topic: &TopicSpec, create: bool) -> Result<(), BrokerError> {
        let mut actual = self.count_partitions(&topic.name).await?;
        if actual == 0 && create {
            let mut connection = self.connection().await?;
            broker_records::create_partitions(&mut connection, &topic.name, topic.partitions)
                .await
                .map_err(broker_error)?;
            actual = topic.partitions;
        }
        match actual {
            0 => Err(BrokerError::NoSuchTopic(topic.name.clone())),
            actual if actual < topic.partitions => Err(BrokerError::TooFewPartitions {
                topic: topic.name.clone(),
                actual,
                expected: topic.partitions,
            }),
            _ => Ok(()),
        }
    }

    async fn range(&self, topic: &str, partition: i32) -> Result<StoredRange, BrokerError> {
        let mut connection = self.connection().await?;
        broker_records::range(&mut connection, topic, partition)
            .await
            .map_err(broker_error)?
            .ok_or_else(|| BrokerError::NoSuchTopic(topic.to_owned()))
    }

    async fn append(&self, topic: &str, partition: i32, records: &NewRecords) -> Result<(), BrokerError> {
        let mut connection = self.connection().await?;
        match broker_records::append(&mut connection, topic, partition, records)
            .await
            .map_err(broker_error)?
        {
            true => Ok(()),
            false => Err(BrokerError::NoSuchTopic(topic.to_owned())),
        }
    }

    async fn remove_front(&self, topic: &TopicSpec, partition: i32) -> Result<i64, BrokerError> {
        let mut connection = self.connection().await?;
        let Retention { age, bytes } = topic.retention;
        broker_records::remove_front(&mut connection, &topic.name, partition, age, bytes, REMOVAL_COUNT_MAX)
            .await
            .map_err(broker_error)
    }

    /// Reads the records at `offset` without waiting.
    async fn poll(
        &self,
        topic: &str,
        partition: i32,
        LogOffset { offset, log_id, .. }: LogOffset,
        bytes_max: usize,
    ) -> Result<Poll, BrokerError> {
        let range = self.range(topic, partition).await?;
        if log_id.is_some_and(|log_id| log_id != range.log_id) {
            let (topic, found) = (topic.to_owned(), Some(range.log_id));
            return Err(BrokerError::LogReplaced { topic, partition, expected: log_id, found });
        }
        if offset < range.earliest || offset > range.latest {
            return Err(BrokerError::OffsetOutOfRange {
                topic: topic.to_owned(),
                partition,
                offset,
                earliest: range.earliest,
                latest: range.latest,
            });
        }
        if offset == range.latest {
            return Ok(Poll::Empty { high_watermark: range.latest });
        }
        let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let mut connection = self.connection().await?;
        let records =
            broker_records::read(&mut connection, topic, partition, offset, FETCH_COUNT_MAX, bytes_max)
                .await
                .map_err(broker_error)?;
        let next = records.last().map_or(offset, |record| record.record_offset + 1);
        let records = records.into_iter().map(fetched).collect::<Result<_, _>>()?;
        let high_watermark = range.latest.max(next);
        Ok(Poll::Found(Fetched { records, next_offset: next, leader_epoch: None, high_watermark }))
    }
}

/// Converts an error of the database. A permanent error does not depend on the topic, because the table is our own.
fn broker_error(error: RepositoryError) -> BrokerError {
    match error.is_transient() {
        true => BrokerError::Unavailable { detail: error.to_string() },
        false => BrokerError::Refused { detail: error.to_string() },
    }
}

fn fetched(record: StoredRecord) -> Result<FetchedRecord, BrokerError> {
    let headers = Headers::from_json(&record.headers).ok_or_else(|| BrokerError::Refused {
        detail: format!("the headers of the record at offset {} cannot be decoded", record.record_offset),
    })?;
    Ok(FetchedRecord {
        offset: record.record_offset,
        key: record.key.map(Into::into),
        value: record.value.map(Into::into),
        headers,
        timestamp: record.created_at,
        leader_epoch: None,
    })
}

fn columns(records: Vec<OutgoingRecord>) -> NewRecords {
    let mut columns = NewRecords::default();
    for record in records {
        columns.keys.push(record.key.map(Into::into));
        columns.values.push(record.value.map(Into::into));
        columns.headers.push(record.headers.to_json());
        columns.timestamps.push(record.timestamp);
    }
    columns
}

async fn bounded<T>(call: impl Future<Output = Result<T, BrokerError>>) -> Result<T, BrokerError> {
    timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| {
        Err(BrokerError::Unavailable { detail: format!("no answer from PostgreSQL within {CALL_TIMEOUT:?}") })
    })
}

#[async_trait]
impl Broker for PostgresBroker {
    async fn ensure_topics(&self, topics: &[TopicSpec], create: bool) -> Result<(), BrokerError> {
        for topic in topics {
            bounded(self.ensure(topic, create)).await?;
        }
        Ok(())
    }

    async fn identify(&self, topics: &[String]) -> Result<BrokerState, BrokerError> {
        let mut partitions = BTreeMap::new();
        for topic in topics {
            let count = bounded(self.count_partitions(topic)).await?;
            if count > 0 {
                partitions.insert(topic.clone(), count);
            }
        }
        let identity = BrokerIdentity { kind: BrokerKind::Postgres, cluster_id: String::new() };
        Ok(BrokerState { identity, partitions })
    }

    async fn partitions(&self, topic: &str) -> Result<i32, BrokerError> {
        let known = self.partitions.lock().unwrap_or_else(PoisonError::into_inner).get(topic).copied();
        if let Some(count) = known {
            return Ok(count);
        }
        let count = bounded(self.count_partitions(topic)).await?;
        if count == 0 {
            return Err(BrokerError::NoSuchTopic(topic.to_owned()));
        }
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned(), count);
        Ok(count)
    }

    async fn produce(
        &self,
        topic: &str,
        partition: i32,
        records: Vec<OutgoingRecord>,
    ) -> Result<(), BrokerError> {
        if records.is_empty() {
            return Ok(());
        }
        bounded(self.append(topic, partition, &columns(records))).await
    }

    async fn fetch_from(
        &self,
        topic: &str,
        partition: i32,
        from: LogOffset,
        bytes_max: usize,
        wait_max: Duration,
    ) -> Result<Fetched, BrokerError> {
        let deadline = Instant::now() + wait_max;
        let mut interval = POLL_INTERVAL_MIN;
        loop {
            let high_watermark = match bounded(self.poll(topic, partition, from, bytes_max)).await? {
                Poll::Found(fetched) => return Ok(fetched),
                Poll::Empty { high_watermark } => high_watermark,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let (records, next_offset) = (Vec::new(), from.offset);
                return Ok(Fetched { records, next_offset, leader_epoch: None, high_watermark });
            }
            sleep(interval.min(left)).await;
            interval = (interval * 2).min(POLL_INTERVAL_MAX);
        }
    }

    async fn log_id(&self, topic: &str, partition: i32) -> Result<Option<Uuid>, BrokerError> {
        Ok(Some(bounded(self.range(topic, partition)).await?.log_id))
    }

    async fn offset_range(&self, topic: &str, partition: i32) -> Result<OffsetRange, BrokerError> {
        let range = bounded(self.range(topic, partition)).await?;
        Ok(OffsetRange { earliest: range.earliest, latest: range.latest })
    }

    async fn offset_at(
        &self,
        topic: &str,
        partition: i32,
        moment: DateTime<Utc>,
    ) -> Result<i64, BrokerError> {
        bounded(async {
            let range = self.range(topic, partition).await?;
            let mut connection = self.connection().await?;
            let found = broker_records::offset_at(&mut connection, topic, partition, moment).await;
            Ok(found.map_err(broker_error)?.unwrap_or(range.latest))
        })
        .await
    }

    async fn describe_topic(&self, topic: &str) -> Result<Option<TopicState>, BrokerError> {
        let partitions = bounded(self.count_partitions(topic)).await?;
        Ok((partitions > 0).then(|| TopicState::of_partitions(partitions)))
    }

    async fn enforce_retention(&self, topics: &[TopicSpec]) -> Result<u64, BrokerError> {
        let mut sum = 0;
        for topic in topics.iter().filter(|topic| topic.retention != Retention::default()) {
            let mut removed_from_topic = 0;
            for partition in 0..self.partitions(&topic.name).await? {
                loop {
                    let removed = bounded(self.remove_front(topic, partition)).await?;
                    removed_from_topic += removed.unsigned_abs();
                    if removed < REMOVAL_COUNT_MAX {
                        break;
                    }
                }
            }
            let name = topic.name.clone();
            metrics::counter!("ledger_broker_records_removed_total", "topic" => name)
                .increment(removed_from_topic);
            sum += removed_from_topic;
        }
        Ok(sum)
    }

    async fn mirror_positions(
        &self,
        _group: &str,
        _topic: &str,
        _positions: &[(i32, i64)],
    ) -> Result<(), BrokerError> {
        Ok(())
    }
}
