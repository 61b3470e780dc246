//! The errors of a broker, classified by their remedy.

use uuid::Uuid;

use crate::event::{RISK_ASSESSMENTS_TOPIC, TRANSACTIONS_TOPIC};

/// An error of a call, classified by its remedy.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A transient failure, such as no connection, a timeout or an election. A retry may succeed.
    #[error("the broker is not available: {detail}")]
    Unavailable {
        /// The cause.
        detail: String,
    },
    /// The broker permanently refuses one of the records because of its size.
    #[error("the broker refuses a record as too large")]
    RecordTooLarge,
    /// The broker permanently refuses one of the records because of its content.
    #[error("the broker refuses a record permanently: {detail}")]
    RecordInvalid {
        /// The reason, in the words of the broker.
        detail: String,
    },
    /// The partition does not hold the offset: retention removed it, or the end of the log was lost.
    #[error("offset {offset} of {topic}/{partition} is outside {earliest}..{latest}")]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition of the topic.
        partition: i32,
        /// The requested offset.
        offset: i64,
        /// The first offset, −1 if unknown.
        earliest: i64,
        /// The offset of the next record, −1 if unknown.
        latest: i64,
    },
    /// The offset belongs to another log than the current one.
    #[error(
        "{topic}/{partition} is another log than before: the topic was deleted and created again{}",
        ids(*expected, *found)
    )]
    LogReplaced {
        /// The topic.
        topic: String,
        /// The partition of the topic.
        partition: i32,
        /// The id of the log that the offset belongs to.
        expected: Option<Uuid>,
        /// The id of the log that the partition has now.
        found: Option<Uuid>,
    },
    /// The log no longer contains what was read before the offset: the broker lost the end of the log.
    #[error(
        "{topic}/{partition} has lost its end: the records before offset {offset}, which were read, are not in the log \
         from offset {end} on"
    )]
    LogTruncated {
        /// The topic.
        topic: String,
        /// The partition of the topic.
        partition: i32,
        /// The requested offset.
        offset: i64,
        /// The first offset whose record may be another one now.
        end: i64,
    },
    /// The topic does not exist.
    #[error("topic {0} does not exist; create it, or set broker.create_topics = true")]
    NoSuchTopic(String),
    /// The topic has fewer partitions than configured.
    #[error(
        "topic {topic} has {actual} partitions, but at least {expected} are expected; set {} = {actual}",
        partitions_key(topic)
    )]
    TooFewPartitions {
        /// The topic.
        topic: String,
        /// The number of partitions it has.
        actual: i32,
        /// The configured number.
        expected: i32,
    },
    /// A permanent refusal, such as wrong credentials, a missing permission or an unsupported version. Retries fail too.
    #[error("the broker refuses: {detail}")]
    Refused {
        /// The reason, in the words of the broker.
        detail: String,
    },
}

/// Returns the key of the configuration that sets the number of partitions of a topic.
fn partitions_key(topic: &str) -> &'static str {
    match topic {
        TRANSACTIONS_TOPIC => "broker.topics.transactions_partitions",
        RISK_ASSESSMENTS_TOPIC => "broker.topics.risk_assessments_partitions",
        _ => "broker.topics.dead_letters_partitions",
    }
}

impl BrokerError {
    /// Returns whether a retry may succeed without any intervention.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Returns whether a single record was refused. The broker may accept the other records of the call.
    pub fn concerns_a_record(&self) -> bool {
        matches!(self, Self::RecordTooLarge | Self::RecordInvalid { .. })
    }

    /// Returns whether the offset of a fetch does not name the next record of its reader: only an operator can decide
    /// where to continue.
    pub fn is_position_lost(&self) -> bool {
        matches!(self, Self::OffsetOutOfRange { .. } | Self::LogReplaced { .. } | Self::LogTruncated { .. })
    }

    /// Returns whether the connection and the broker are healthy after this error.
    pub(super) fn leaves_connection_usable(&self) -> bool {
        self.concerns_a_record() || matches!(self, Self::OffsetOutOfRange { .. } | Self::LogTruncated { .. })
    }
}

fn ids(expected: Option<Uuid>, found: Option<Uuid>) -> String {
    let text = |id: Option<Uuid>| id.map_or_else(|| "none".to_owned(), |id| id.to_string());
    format!(" (its id was {}, and is {})", text(expected), text(found))
}
