//! What is asked of a partition's leader: to take records, to give some, and where they begin and end.

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
    KafkaBroker,
    admin::text,
    compression::Codec,
    connections::{Line, Purpose},
    record_batch,
    refusal::of_server,
};
use crate::broker::{BrokerError, Fetched, OutgoingRecord};

/// All replicas that are in sync have it.
const ACKS_ALL: i16 = -1;
/// Not a broker that replicates.
const NO_REPLICA: BrokerId = BrokerId(-1);
/// Not a session of incremental fetches.
const NO_SESSION: (i32, i32) = (0, -1);

/// What stands for a moment where an offset is asked for.
pub(super) const LATEST: i64 = -1;
pub(super) const EARLIEST: i64 = -2;

impl KafkaBroker {
    pub(super) async fn produce_to(
        &self,
        topic: &str,
        partition: i32,
        records: &[OutgoingRecord],
        codec: Codec,
    ) -> Result<(), BrokerError> {
        if records.is_empty() {
            return Ok(());
        }
        // Nothing but a batch beyond 2 GiB fails to be encoded.
        let batch = record_batch::encode(records, codec).map_err(|_| BrokerError::RecordTooLarge)?;
        let data =
            PartitionProduceData::default().with_index(partition).with_records(Some(Bytes::from(batch)));
        let data =
            TopicProduceData::default().with_name(TopicName(text(topic))).with_partition_data(vec![data]);
        let timeout_ms = millis(self.settings.request_timeout);
        let request = ProduceRequest::default()
            .with_acks(ACKS_ALL)
            .with_timeout_ms(timeout_ms)
            .with_topic_data(vec![data]);
        let line = Line::new(topic, partition, Purpose::Prompt);
        let read = |answer: ProduceResponse| {
            let of_topic = answer.responses.into_iter().next();
            let outcome = of_topic.and_then(|of_topic| of_topic.partition_responses.into_iter().next());
            let outcome = outcome.ok_or_else(|| unanswered(&line))?;
            // What it says of one record is the reason for all.
            let of_record = outcome.record_errors.into_iter().find_map(|of| of.batch_index_error_message);
            of_server(topic, outcome.error_code, of_record.or(outcome.error_message).as_deref())
        };
        self.ask_leader(&line, Duration::ZERO, &request, read).await
    }

    /// Where an offset is out of range, that is all that the error says.
    pub(super) async fn fetch_from(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        bytes_max: usize,
        wait_max: Duration,
    ) -> Result<Fetched, BrokerError> {
        let bytes_max = i32::try_from(bytes_max).unwrap_or(i32::MAX).max(1);
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(bytes_max);
        let wanted = FetchTopic::default().with_topic(TopicName(text(topic))).with_partitions(vec![wanted]);
        let request = FetchRequest::default()
            .with_replica_id(NO_REPLICA)
            .with_max_wait_ms(millis(wait_max))
            .with_min_bytes(1)
            .with_max_bytes(bytes_max)
            .with_session_id(NO_SESSION.0)
            .with_session_epoch(NO_SESSION.1)
            .with_topics(vec![wanted]);
        let line = Line::new(topic, partition, Purpose::Waiting);
        let read = |answer: FetchResponse| {
            of_server(topic, answer.error_code, None)?;
            let of_topic = answer.responses.into_iter().next();
            let found = of_topic.and_then(|of_topic| of_topic.partitions.into_iter().next());
            let found = found.ok_or_else(|| unanswered(&line))?;
            of_server(topic, found.error_code, None)?;
            let decoded = record_batch::decode(&found.records.unwrap_or_default(), offset);
            let (records, next_offset) = decoded.map_err(|error| BrokerError::Unavailable {
                detail: format!("a batch of {topic}/{partition} at or after offset {offset}: {error}"),
            })?;
            Ok(Fetched { records, next_offset, high_watermark: found.high_watermark })
        };
        self.ask_leader(&line, wait_max, &request, read).await
    }

    /// The first offset at or after a moment in milliseconds, or [`EARLIEST`] or [`LATEST`]; None if there is none.
    pub(super) async fn offset_of(
        &self,
        topic: &str,
        partition: i32,
        timestamp: i64,
    ) -> Result<Option<i64>, BrokerError> {
        let wanted =
            ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp);
        let wanted =
            ListOffsetsTopic::default().with_name(TopicName(text(topic))).with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default().with_replica_id(NO_REPLICA).with_topics(vec![wanted]);
        let line = Line::new(topic, partition, Purpose::Prompt);
        let read = |answer: ListOffsetsResponse| {
            let of_topic = answer.topics.into_iter().next();
            let found = of_topic.and_then(|of_topic| of_topic.partitions.into_iter().next());
            let found = found.ok_or_else(|| unanswered(&line))?;
            of_server(topic, found.error_code, None)?;
            Ok((found.offset >= 0).then_some(found.offset))
        };
        self.ask_leader(&line, Duration::ZERO, &request, read).await
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

fn unanswered(line: &Line) -> BrokerError {
    BrokerError::Unavailable { detail: format!("no answer about {}/{}", line.topic, line.partition) }
}
