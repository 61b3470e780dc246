//! The requests that the client sends, each in a fixed version that every Kafka since 3.0 understands. Requests that
//! identify a topic by its id need a later version, and use it where the broker has it.

use std::time::Duration;

use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse,
        DescribeConfigsRequest, DescribeConfigsResponse, FetchRequest, FetchResponse, FindCoordinatorRequest,
        FindCoordinatorResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
        OffsetCommitRequest, OffsetCommitResponse, ProduceRequest, ProduceResponse, SaslAuthenticateRequest,
        SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
    },
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes, buf::ByteBufMut},
};

const MIB: usize = 1024 * 1024;

/// The version of a fetch that names the topic by its id (Kafka 3.1).
const FETCH_BY_ID: i16 = 13;
/// The version of a metadata request whose answer contains the ids of topics (Kafka 3.0).
const METADATA_WITH_IDS: i16 = 12;

/// A request of the protocol.
pub(super) trait Request: Encodable + Sync {
    const KEY: ApiKey;
    /// A version that every broker understands.
    const VERSION: i16;
    const ANSWER_BYTES_MAX: usize = 4 * MIB;
    type Answer: Decodable + HeaderVersion;

    /// Chooses the version for a broker whose newest version of this request is `newest`.
    fn version(&self, _newest: i16) -> i16 {
        Self::VERSION
    }

    /// Milliseconds that the client must wait before its next request on the connection, because of a quota.
    fn throttle_time_ms(answer: &Self::Answer) -> i32;

    /// Returns whether the broker refused the work because of a quota. The request must be sent again after the wait.
    fn is_withheld(_answer: &Self::Answer) -> bool {
        false
    }
}

impl Request for ProduceRequest {
    const KEY: ApiKey = ApiKey::Produce;
    const VERSION: i16 = 8;
    type Answer = ProduceResponse;

    fn throttle_time_ms(answer: &ProduceResponse) -> i32 {
        answer.throttle_time_ms
    }
}

impl Request for ApiVersionsRequest {
    const KEY: ApiKey = ApiKey::ApiVersions;
    const VERSION: i16 = 2;
    type Answer = ApiVersionsResponse;

    fn throttle_time_ms(answer: &ApiVersionsResponse) -> i32 {
        answer.throttle_time_ms
    }
}

/// A fetch from one partition, in both of its forms.
pub(super) struct Fetch {
    /// Names the topic by its name.
    pub(super) by_name: FetchRequest,
    /// Names the topic by its id, and the leader epoch of the record before the offset. The broker refuses it if the log
    /// is another one. None if the id is not known.
    pub(super) by_id: Option<FetchRequest>,
}

impl Fetch {
    fn of_version(&self, version: i16) -> &FetchRequest {
        match &self.by_id {
            Some(by_id) if version >= FETCH_BY_ID => by_id,
            _ => &self.by_name,
        }
    }
}

impl Encodable for Fetch {
    fn encode<B: ByteBufMut>(&self, buffer: &mut B, version: i16) -> anyhow::Result<()> {
        self.of_version(version).encode(buffer, version)
    }

    fn compute_size(&self, version: i16) -> anyhow::Result<usize> {
        self.of_version(version).compute_size(version)
    }
}

impl Request for Fetch {
    const KEY: ApiKey = ApiKey::Fetch;
    const VERSION: i16 = 11;
    /// A broker returns at least one batch, however few bytes are asked for.
    const ANSWER_BYTES_MAX: usize = 128 * MIB;
    type Answer = FetchResponse;

    fn version(&self, newest: i16) -> i16 {
        if self.by_id.is_some() && newest >= FETCH_BY_ID { FETCH_BY_ID } else { Self::VERSION }
    }

    fn throttle_time_ms(answer: &FetchResponse) -> i32 {
        answer.throttle_time_ms
    }

    /// A throttled fetch names no partition at all; a fetch that found no records does.
    fn is_withheld(answer: &FetchResponse) -> bool {
        answer.throttle_time_ms > 0 && answer.error_code == 0 && answer.responses.is_empty()
    }
}

impl Request for ListOffsetsRequest {
    const KEY: ApiKey = ApiKey::ListOffsets;
    const VERSION: i16 = 5;
    type Answer = ListOffsetsResponse;

    fn throttle_time_ms(answer: &ListOffsetsResponse) -> i32 {
        answer.throttle_time_ms
    }
}

impl Request for SaslHandshakeRequest {
    const KEY: ApiKey = ApiKey::SaslHandshake;
    const VERSION: i16 = 1;
    type Answer = SaslHandshakeResponse;

    fn throttle_time_ms(_answer: &SaslHandshakeResponse) -> i32 {
        0
    }
}

impl Request for SaslAuthenticateRequest {
    const KEY: ApiKey = ApiKey::SaslAuthenticate;
    const VERSION: i16 = 1;
    type Answer = SaslAuthenticateResponse;

    fn throttle_time_ms(_answer: &SaslAuthenticateResponse) -> i32 {
        0
    }
}

impl Request for MetadataRequest {
    const KEY: ApiKey = ApiKey::Metadata;
    const VERSION: i16 = 7;
    type Answer = MetadataResponse;

    fn version(&self, newest: i16) -> i16 {
        if newest >= METADATA_WITH_IDS { METADATA_WITH_IDS } else { Self::VERSION }
    }

    fn throttle_time_ms(answer: &MetadataResponse) -> i32 {
        answer.throttle_time_ms
    }
}

impl Request for DescribeConfigsRequest {
    const KEY: ApiKey = ApiKey::DescribeConfigs;
    const VERSION: i16 = 2;
    type Answer = DescribeConfigsResponse;

    fn throttle_time_ms(answer: &DescribeConfigsResponse) -> i32 {
        answer.throttle_time_ms
    }
}

impl Request for CreateTopicsRequest {
    const KEY: ApiKey = ApiKey::CreateTopics;
    const VERSION: i16 = 5;
    type Answer = CreateTopicsResponse;

    fn throttle_time_ms(answer: &CreateTopicsResponse) -> i32 {
        answer.throttle_time_ms
    }
}

impl Request for FindCoordinatorRequest {
    const KEY: ApiKey = ApiKey::FindCoordinator;
    const VERSION: i16 = 4;
    type Answer = FindCoordinatorResponse;

    fn throttle_time_ms(answer: &FindCoordinatorResponse) -> i32 {
        answer.throttle_time_ms
    }
}

impl Request for OffsetCommitRequest {
    const KEY: ApiKey = ApiKey::OffsetCommit;
    const VERSION: i16 = 8;
    type Answer = OffsetCommitResponse;

    fn throttle_time_ms(answer: &OffsetCommitResponse) -> i32 {
        answer.throttle_time_ms
    }
}

/// Converts to the protocol's text type.
pub(super) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// Converts to milliseconds as the protocol carries them.
pub(super) fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{
        TopicName,
        fetch_request::{FetchPartition, FetchTopic},
    };
    use uuid::Uuid;

    use super::*;

    /// A broker that is too old gets the request that it understands, without the fields that it does not know.
    #[test]
    fn a_fetch_names_the_topic_by_id_where_the_broker_understands_that() {
        let partition = FetchPartition::default();
        let request = |topic: FetchTopic, partition: FetchPartition| {
            FetchRequest::default().with_topics(vec![topic.with_partitions(vec![partition])])
        };
        let by_name = || request(FetchTopic::default().with_topic(TopicName(text("t"))), partition.clone());
        let topic = FetchTopic::default().with_topic_id(Uuid::new_v4());
        let by_id = request(topic, partition.clone().with_last_fetched_epoch(3));
        let identified = Fetch { by_name: by_name(), by_id: Some(by_id) };
        let unidentified = Fetch { by_name: by_name(), by_id: None };
        for (newest, expected) in [(0, 11), (11, 11), (12, 11), (13, 13), (17, 13)] {
            assert_eq!((identified.version(newest), unidentified.version(newest)), (expected, 11));
            let mut buffer = bytes::BytesMut::new();
            identified.encode(&mut buffer, expected).expect("encoded");
            assert_eq!(identified.compute_size(expected).expect("a size"), buffer.len());
        }
        for (newest, expected) in [(0, 7), (11, 7), (12, 12), (13, 12)] {
            assert_eq!(MetadataRequest::default().version(newest), expected);
        }
    }
}
