//! The requests that the client sends, each in one fixed version that every Kafka since 3.0 understands.

use std::time::Duration;

use kafka_protocol::{
    messages::{
        ApiKey, CreateTopicsRequest, CreateTopicsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
        FetchRequest, FetchResponse, FindCoordinatorRequest, FindCoordinatorResponse, ListOffsetsRequest,
        ListOffsetsResponse, MetadataRequest, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse,
        ProduceRequest, ProduceResponse, SaslAuthenticateRequest, SaslAuthenticateResponse,
        SaslHandshakeRequest, SaslHandshakeResponse,
    },
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
};

const MIB: usize = 1024 * 1024;

/// A request of the protocol, with the one version of it that is used.
pub(super) trait Request: Encodable + Sync {
    const KEY: ApiKey;
    const VERSION: i16;
    const ANSWER_BYTES_MAX: usize = 4 * MIB;
    type Answer: Decodable + HeaderVersion;

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

impl Request for FetchRequest {
    const KEY: ApiKey = ApiKey::Fetch;
    const VERSION: i16 = 11;
    /// A broker returns at least one batch, however few bytes are asked for.
    const ANSWER_BYTES_MAX: usize = 128 * MIB;
    type Answer = FetchResponse;

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
