//! Kafka's error codes, classified by their remedy.

use kafka_protocol::ResponseError;

use crate::broker::BrokerError;

/// Turns the error code of an answer about `topic` into an error; `message` is the broker's own text.
///
/// A code that is not known to be permanent counts as transient: an outage must never stop a role, and a permanent
/// refusal that is retried only costs log lines. Two codes need a reason:
///
/// - `InvalidTimestamp` is transient. A record carries the time of its publication, so the clocks of this machine and
///   of the broker differ and no record is at fault.
/// - `CorruptMessage` is transient, because the bytes were damaged in transit.
pub(super) fn check(topic: &str, code: i16, message: Option<&str>) -> Result<(), BrokerError> {
    let Some(error) = ResponseError::try_from_code(code) else { return Ok(()) };
    let message = message.map(|text| format!(": {text}")).unwrap_or_default();
    let detail = format!("{error:?} for topic {topic}{message}");
    Err(match error {
        ResponseError::OffsetOutOfRange => BrokerError::OffsetOutOfRange {
            topic: topic.to_owned(),
            partition: -1,
            offset: -1,
            earliest: -1,
            latest: -1,
        },
        ResponseError::UnknownTopicId | ResponseError::InconsistentTopicId => {
            BrokerError::LogReplaced { topic: topic.to_owned(), partition: -1, expected: None, found: None }
        }
        ResponseError::MessageTooLarge | ResponseError::RecordListTooLarge => BrokerError::RecordTooLarge,
        ResponseError::InvalidRecord => BrokerError::RecordInvalid { detail },
        ResponseError::InvalidTimestamp => BrokerError::Unavailable {
            detail: format!("{detail}; compare the clocks of this machine and of the broker"),
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

/// Builds the error of a request that could not describe the topic.
pub(super) fn cannot_describe(topic: &str, error: ResponseError) -> BrokerError {
    let detail = format!("topic {topic} cannot be described: {error:?}");
    match error.is_retriable() {
        true => BrokerError::Unavailable { detail },
        false => BrokerError::Refused { detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes that a single node never returns. The other codes are provoked on a real broker by
    /// `kafka_errors_are_classified_by_their_remedy`.
    #[test]
    fn codes_are_classified_by_their_remedy() {
        let classified = |error: ResponseError| check("t", error.code(), None).expect_err("an error");
        for transient in [
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
            assert!(classified(transient).is_transient(), "{transient:?}");
        }
        for permanent in [
            ResponseError::InvalidRequiredAcks,
            ResponseError::ClusterAuthorizationFailed,
            ResponseError::UnsupportedVersion,
            ResponseError::PolicyViolation,
        ] {
            assert!(matches!(classified(permanent), BrokerError::Refused { .. }), "{permanent:?}");
        }
        assert!(classified(ResponseError::RecordListTooLarge).concerns_a_record());
        assert!(check("t", 0, None).is_ok());
    }
}
