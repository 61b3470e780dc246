//! What Kafka refuses, sorted by what the caller can do about it.

use kafka_protocol::ResponseError;

use super::BrokerError;

/// What a code in an answer about `topic` means, with what the broker said besides. What is not known to be for good
/// counts as passing: an outage must never stop a role, while a refusal that is retried only costs log lines.
///
/// `InvalidTimestamp` passes: a record carries the time of its publishing, so it says that this clock and the broker's
/// differ, and no record is to blame. So does `CorruptMessage`: bytes that were damaged on their way.
pub(super) fn of_server(topic: &str, code: i16, said: Option<&str>) -> Result<(), BrokerError> {
    let Some(error) = ResponseError::try_from_code(code) else { return Ok(()) };
    let said = said.map(|text| format!(": {text}")).unwrap_or_default();
    let detail = format!("{error:?} for topic {topic}{said}");
    Err(match error {
        ResponseError::OffsetOutOfRange => BrokerError::OffsetOutOfRange {
            topic: topic.to_owned(),
            partition: -1,
            offset: -1,
            earliest: -1,
            latest: -1,
        },
        ResponseError::MessageTooLarge | ResponseError::RecordListTooLarge => BrokerError::RecordTooLarge,
        ResponseError::InvalidRecord => BrokerError::RecordInvalid { detail },
        ResponseError::InvalidTimestamp => BrokerError::Unavailable {
            detail: format!("{detail}; do this machine's clock and the broker's agree?"),
        },
        ResponseError::UnknownTopicOrPartition => BrokerError::NoSuchTopic(topic.to_owned()),
        ResponseError::TopicAuthorizationFailed
        | ResponseError::GroupAuthorizationFailed
        | ResponseError::ClusterAuthorizationFailed
        | ResponseError::SaslAuthenticationFailed
        | ResponseError::UnsupportedSaslMechanism
        | ResponseError::IllegalSaslState
        | ResponseError::SecurityDisabled
        | ResponseError::UnsupportedVersion
        | ResponseError::UnsupportedForMessageFormat
        | ResponseError::UnsupportedCompressionType
        | ResponseError::InvalidTopicException
        | ResponseError::InvalidPartitions
        | ResponseError::InvalidReplicationFactor
        | ResponseError::InvalidConfig
        | ResponseError::InvalidRequiredAcks
        | ResponseError::PolicyViolation => BrokerError::Refused { detail },
        _ => BrokerError::Unavailable { detail },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those that one node cannot be made to answer; the others are provoked on a real one.
    #[test]
    fn codes_are_sorted_by_what_can_be_done() {
        let sorted = |error: ResponseError| of_server("t", error.code(), None).expect_err("an error");
        for passing in [
            ResponseError::NotEnoughReplicas,
            ResponseError::NotEnoughReplicasAfterAppend,
            ResponseError::RequestTimedOut,
            ResponseError::NotLeaderOrFollower,
            ResponseError::KafkaStorageError,
            ResponseError::CorruptMessage,
            ResponseError::ThrottlingQuotaExceeded,
            ResponseError::UnknownServerError,
            ResponseError::Unknown(12345),
        ] {
            assert!(sorted(passing).is_transient(), "{passing:?}");
        }
        for refused in [
            ResponseError::InvalidRequiredAcks,
            ResponseError::ClusterAuthorizationFailed,
            ResponseError::UnsupportedVersion,
            ResponseError::PolicyViolation,
        ] {
            assert!(matches!(sorted(refused), BrokerError::Refused { .. }), "{refused:?}");
        }
        assert!(sorted(ResponseError::RecordListTooLarge).is_about_a_record());
        assert!(of_server("t", 0, None).is_ok());
    }
}
