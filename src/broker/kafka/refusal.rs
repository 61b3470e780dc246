//! rskafka's errors, sorted by what the caller can do about them.

use rskafka::{
    BackoffError, ConnectionError,
    client::error::{Error, ProtocolError, RequestContext, RequestError},
};

use super::BrokerError;

/// What an error of a call about `topic` means. What is not known to be for good counts as passing: an outage must
/// never stop a role, while a refusal that is retried only costs log lines.
pub(super) fn broker_error(topic: &str, error: &Error) -> BrokerError {
    let detail = error.to_string();
    match error {
        Error::ServerError {
            protocol_error: ProtocolError::OffsetOutOfRange,
            request: RequestContext::Fetch { partition_id, offset, .. },
            ..
        } => BrokerError::OffsetOutOfRange {
            topic: topic.to_owned(),
            partition: *partition_id,
            offset: *offset,
            earliest: -1,
            latest: -1,
        },
        Error::ServerError { protocol_error, error_message, .. } => {
            let said = error_message.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
            of_server(topic, *protocol_error, format!("{protocol_error:?} for topic {topic}{said}"))
        }
        // A partition that its topic does not have; whether that is so for good is asked again.
        Error::InvalidResponse(text) if text.starts_with("Could not find metadata for partition") => {
            BrokerError::NoSuchTopic(topic.to_owned())
        }
        Error::RetryFailed(BackoffError::DeadlineExceded { source, .. }) => {
            match source.downcast_ref::<Error>() {
                Some(inner) => broker_error(topic, inner),
                None => BrokerError::Unavailable { detail },
            }
        }
        Error::Connection(ConnectionError::SaslFailed(_))
        | Error::Request(RequestError::NoVersionMatch { .. }) => BrokerError::Refused { detail },
        Error::Connection(ConnectionError::RetryFailed(BackoffError::DeadlineExceded { source, .. })) => {
            // The reason lies in a list of what each server said.
            BrokerError::Unavailable { detail: source.to_string() }
        }
        _ => BrokerError::Unavailable { detail },
    }
}

/// By Kafka's codes. `InvalidTimestamp` passes: a record carries the time of its publishing, so it says that this clock
/// and the broker's differ, and no record is to blame. So does `CorruptMessage`: bytes that were damaged on their way.
fn of_server(topic: &str, error: ProtocolError, detail: String) -> BrokerError {
    match error {
        ProtocolError::MessageTooLarge | ProtocolError::RecordListTooLarge => BrokerError::RecordTooLarge,
        ProtocolError::InvalidRecord => BrokerError::RecordInvalid { detail },
        ProtocolError::InvalidTimestamp => BrokerError::Unavailable {
            detail: format!("{detail}; do this machine's clock and the broker's agree?"),
        },
        ProtocolError::UnknownTopicOrPartition => BrokerError::NoSuchTopic(topic.to_owned()),
        ProtocolError::TopicAuthorizationFailed
        | ProtocolError::GroupAuthorizationFailed
        | ProtocolError::ClusterAuthorizationFailed
        | ProtocolError::SaslAuthenticationFailed
        | ProtocolError::UnsupportedSaslMechanism
        | ProtocolError::IllegalSaslState
        | ProtocolError::SecurityDisabled
        | ProtocolError::UnsupportedVersion
        | ProtocolError::UnsupportedForMessageFormat
        | ProtocolError::UnsupportedCompressionType
        | ProtocolError::InvalidTopicException
        | ProtocolError::InvalidPartitions
        | ProtocolError::InvalidReplicationFactor
        | ProtocolError::InvalidConfig
        | ProtocolError::InvalidRequiredAcks
        | ProtocolError::PolicyViolation => BrokerError::Refused { detail },
        _ => BrokerError::Unavailable { detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those that one node cannot be made to answer; the others are provoked on a real one.
    #[test]
    fn codes_are_sorted_by_what_can_be_done() {
        let sorted = |error| of_server("t", error, String::new());
        for passing in [
            ProtocolError::NotEnoughReplicas,
            ProtocolError::NotEnoughReplicasAfterAppend,
            ProtocolError::RequestTimedOut,
            ProtocolError::NotLeaderOrFollower,
            ProtocolError::KafkaStorageError,
            ProtocolError::CorruptMessage,
            ProtocolError::ThrottlingQuotaExceeded,
            ProtocolError::UnknownServerError,
        ] {
            assert!(sorted(passing).is_transient(), "{passing:?}");
        }
        for refused in [
            ProtocolError::InvalidRequiredAcks,
            ProtocolError::ClusterAuthorizationFailed,
            ProtocolError::UnsupportedVersion,
            ProtocolError::PolicyViolation,
        ] {
            assert!(matches!(sorted(refused), BrokerError::Refused { .. }), "{refused:?}");
        }
        assert!(sorted(ProtocolError::RecordListTooLarge).is_about_a_record());
    }
}
