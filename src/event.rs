//! The wire contract: event types, their JSON, topics, partitions and lanes.
//!
//! Events follow CloudEvents 1.0 in Kafka's binary mode: attributes are `ce_…` headers, the value is JSON, and the record
//! key is the account. A new optional field keeps the version of an event; any other change needs a `.v2`.

mod cloud_event;
mod dead_letter;
mod headers;
mod partition;
mod risk_assessed;
mod schema;
mod transaction_created;
mod varint;

use chrono::{DateTime, Utc};

use crate::domain::format_moment;

pub use cloud_event::{REPUBLISHED, cloud_event_headers, republished_headers};
pub use dead_letter::{DEAD_LETTER_REASONS, RELAY_REASONS};
pub use headers::Headers;
pub use partition::{LANES, lane_of, murmur2, partition_of};
pub use risk_assessed::{RISK_ASSESSED, RiskAssessed, RiskReason, RuleError, RuleSuppressed};
pub use schema::{EVENT_TYPES, schema, schemas};
pub use transaction_created::{
    DecodeError, TRANSACTION_CREATED, TransactionCreated, encode_transaction_created,
};
pub(crate) use varint::{put_sized, put_varint, sized_size, take_sized, take_varint, varint_size};

/// Topic of [`TransactionCreated`].
pub const TRANSACTIONS_TOPIC: &str = "transactions.v1";
/// Topic of [`RiskAssessed`].
pub const RISK_ASSESSMENTS_TOPIC: &str = "risk-assessments.v1";
/// Topic of the records that `consume-risk` dead-lettered.
pub const TRANSACTIONS_DEAD_LETTER_TOPIC: &str = "transactions.v1.dlq";

/// All topics.
pub const TOPICS: [&str; 3] = [TRANSACTIONS_TOPIC, RISK_ASSESSMENTS_TOPIC, TRANSACTIONS_DEAD_LETTER_TOPIC];

/// Writes all six digits of the microseconds; serde would omit trailing zeros.
fn serialize_moment<S: serde::Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_moment(*at))
}
