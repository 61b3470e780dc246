//! One partition: publishes records to it, fetches records from it, and finds offsets in it.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{
    BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, ProduceRequest,
    ProduceResponse, TopicName,
    fetch_request::{FetchPartition, FetchTopic},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    produce_request::{PartitionProduceData, TopicProduceData},
};

use super::{
    errors::check,
    leader_connections::{ConnectionKey, LeaderConnections, Purpose},
    metadata::Metadata,
    record_batch::{self, Decoded},
    requests::{Fetch, millis, text},
};
use crate::{
    broker::{BrokerError, Fetched, LogOffset, OffsetRange, OutgoingRecord},
    config::Compression,
};

/// The broker answers when all in-sync replicas have the records.
const ACKS_ALL: i16 = -1;
/// Says that this client is no broker that replicates.
const NO_REPLICA: BrokerId = BrokerId(-1);
/// Says that the fetch is not part of an incremental fetch session.
const NO_SESSION: (i32, i32) = (0, -1);
/// Stands for an unknown leader epoch.
const NO_EPOCH: i32 = -1;

/// Stands for a timestamp when the next offset is asked for.
const LATEST: i64 = -1;
/// Stands for a timestamp when the first offset is asked for.
const EARLIEST: i64 = -2;

/// A partition and the connections to its leader.
pub(super) struct Partition<'a> {
    connections: &'a LeaderConnections,
    metadata: &'a Metadata,
    topic: &'a str,
    number: i32,
}

impl<'a> Partition<'a> {
    pub(super) fn new(
        connections: &'a LeaderConnections,
        metadata: &'a Metadata,
        topic: &'a str,
        number: i32,
    ) -> Self {
        Self { connections, metadata, topic, number }
    }

    /// Publishes the records as one batch and returns when all in-sync replicas have it.
    pub(super) async fn produce(
        &self,
        records: &[OutgoingRecord],
        compression: Compression,
    ) -> Result<(), BrokerError> {
        if records.is_empty() {
            return Ok(());
        }
        // Encoding fails only for a batch beyond 2 GiB.
        let batch = record_batch::encode(records, compression).map_err(|_| BrokerError::RecordTooLarge)?;
        let data =
            PartitionProduceData::default().with_index(self.number).with_records(Some(Bytes::from(batch)));
        let data = TopicProduceData::default().with_name(self.topic_name()).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(ACKS_ALL)
            .with_timeout_ms(millis(self.connections.request_timeout()))
            .with_topic_data(vec![data]);
        let read = |answer: ProduceResponse| {
            let topic = answer.responses.into_iter().next();
            let outcome = topic.and_then(|topic| topic.partition_responses.into_iter().next());
            let outcome = outcome.ok_or_else(|| self.unanswered())?;
            // The message about one record explains why the whole batch was refused.
            let about_record =
                outcome.record_errors.into_iter().find_map(|error| error.batch_index_error_message);
            check(self.topic, outcome.error_code, about_record.or(outcome.error_message).as_deref())
        };
        self.connections.request(&self.key(Purpose::Prompt), Duration::ZERO, &request, read).await
    }

    /// Fetches records from an offset on.
    pub(super) async fn fetch(
        &self,
        from: LogOffset,
        bytes_max: usize,
        wait_max: Duration,
    ) -> Result<Fetched, BrokerError> {
        let bytes_max = i32::try_from(bytes_max).unwrap_or(i32::MAX).max(1);
        let request = self.fetch_request(from, bytes_max, wait_max);
        let read = |answer| self.read_fetched(answer, from);
        match self.connections.request(&self.key(Purpose::Fetch), wait_max, &request, read).await {
            Err(BrokerError::OffsetOutOfRange { .. }) => Err(self.out_of_range(from.offset).await),
            Err(BrokerError::LogReplaced { .. }) => {
                Err(self.metadata.replaced(self.topic, self.number, from.log_id).await)
            }
            outcome => outcome,
        }
    }

    fn fetch_request(&self, from: LogOffset, bytes_max: i32, wait_max: Duration) -> Fetch {
        let partition = FetchPartition::default()
            .with_partition(self.number)
            .with_fetch_offset(from.offset)
            .with_partition_max_bytes(bytes_max);
        let request = |topic: FetchTopic, partition: FetchPartition| {
            FetchRequest::default()
                .with_replica_id(NO_REPLICA)
                .with_max_wait_ms(millis(wait_max))
                .with_min_bytes(1)
                .with_max_bytes(bytes_max)
                .with_session_id(NO_SESSION.0)
                .with_session_epoch(NO_SESSION.1)
                .with_topics(vec![topic.with_partitions(vec![partition])])
        };
        let by_id = from.log_id.map(|id| {
            let epoch = from.leader_epoch.unwrap_or(NO_EPOCH);
            request(FetchTopic::default().with_topic_id(id), partition.clone().with_last_fetched_epoch(epoch))
        });
        Fetch { by_name: request(FetchTopic::default().with_topic(self.topic_name()), partition), by_id }
    }

    fn read_fetched(&self, answer: FetchResponse, from: LogOffset) -> Result<Fetched, BrokerError> {
        check(self.topic, answer.error_code, None)?;
        let topic = answer.responses.into_iter().next();
        let found = topic.and_then(|topic| topic.partitions.into_iter().next());
        let found = found.ok_or_else(|| self.unanswered())?;
        check(self.topic, found.error_code, None)?;
        let offset = from.offset;
        if found.diverging_epoch.epoch != NO_EPOCH {
            let end = found.diverging_epoch.end_offset;
            return Err(self.truncated(offset, end));
        }
        let decoded = record_batch::decode(&found.records.unwrap_or_default(), offset);
        let Decoded { records, next_offset, leader_epoch } =
            decoded.map_err(|error| BrokerError::Unavailable {
                detail: format!(
                    "cannot read a batch of {}/{} at or after offset {offset}: {error}",
                    self.topic, self.number
                ),
            })?;
        Ok(Fetched { records, next_offset, leader_epoch, high_watermark: found.high_watermark })
    }

    fn truncated(&self, offset: i64, end: i64) -> BrokerError {
        BrokerError::LogTruncated { topic: self.topic.to_owned(), partition: self.number, offset, end }
    }

    async fn out_of_range(&self, offset: i64) -> BrokerError {
        let range = self.offset_range().await;
        let OffsetRange { earliest, latest } = range.unwrap_or(OffsetRange { earliest: -1, latest: -1 });
        if (earliest..=latest).contains(&offset) {
            // The log has the offset, but not the epoch of the record before it.
            return self.truncated(offset, earliest);
        }
        let (topic, partition) = (self.topic.to_owned(), self.number);
        BrokerError::OffsetOutOfRange { topic, partition, offset, earliest, latest }
    }

    /// Returns the first offset and the next one.
    pub(super) async fn offset_range(&self) -> Result<OffsetRange, BrokerError> {
        let earliest = self.find_offset(EARLIEST).await?.unwrap_or(0);
        let latest = self.find_offset(LATEST).await?.unwrap_or(0);
        Ok(OffsetRange { earliest, latest })
    }

    /// Returns the offset of the first record at or after a timestamp in milliseconds, or the next offset if there is
    /// no such record.
    pub(super) async fn offset_at(&self, timestamp: i64) -> Result<i64, BrokerError> {
        match self.find_offset(timestamp).await? {
            Some(offset) => Ok(offset),
            None => Ok(self.find_offset(LATEST).await?.unwrap_or(0)),
        }
    }

    async fn find_offset(&self, timestamp: i64) -> Result<Option<i64>, BrokerError> {
        let wanted =
            ListOffsetsPartition::default().with_partition_index(self.number).with_timestamp(timestamp);
        let wanted = ListOffsetsTopic::default().with_name(self.topic_name()).with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default().with_replica_id(NO_REPLICA).with_topics(vec![wanted]);
        let read = |answer: ListOffsetsResponse| {
            let topic = answer.topics.into_iter().next();
            let found = topic.and_then(|topic| topic.partitions.into_iter().next());
            let found = found.ok_or_else(|| self.unanswered())?;
            check(self.topic, found.error_code, None)?;
            Ok((found.offset >= 0).then_some(found.offset))
        };
        self.connections.request(&self.key(Purpose::Prompt), Duration::ZERO, &request, read).await
    }

    fn topic_name(&self) -> TopicName {
        TopicName(text(self.topic))
    }

    fn key(&self, purpose: Purpose) -> ConnectionKey {
        ConnectionKey { topic: self.topic.to_owned(), partition: self.number, purpose }
    }

    fn unanswered(&self) -> BrokerError {
        BrokerError::Unavailable { detail: format!("no answer about {}/{}", self.topic, self.number) }
    }
}
