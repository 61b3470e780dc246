//! CloudEvents 1.0 attributes as record headers (Kafka protocol binding, binary content mode).

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{headers::Headers, transaction_created::TRANSACTION_CREATED};
use crate::domain::{Transaction, format_moment};

/// The header of an event that an operator publishes again: an extension attribute of CloudEvents.
pub const REPUBLISHED: &str = "ce_republished";

/// Returns the headers of an event of this project.
pub fn cloud_event_headers(
    event_id: Uuid,
    event_type: &str,
    time: DateTime<Utc>,
    traceparent: Option<&str>,
) -> Headers {
    let mut id = Uuid::encode_buffer();
    let id: &str = event_id.hyphenated().encode_lower(&mut id);
    let time = format_moment(time);
    let attributes = [
        ("ce_specversion", "1.0"),
        ("ce_id", id),
        ("ce_type", event_type),
        ("ce_source", "/ledger"),
        ("ce_time", &time),
        ("content-type", "application/json"),
    ];
    attributes.into_iter().chain(traceparent.map(|traceparent| ("traceparent", traceparent))).collect()
}

/// Returns the headers of the event of a transaction that an operator publishes again. They are those of its first
/// publication without the trace, and one that marks it.
pub fn republished_headers(transaction: &Transaction) -> Headers {
    cloud_event_headers(transaction.id, TRANSACTION_CREATED, transaction.created_at, None)
        .followed_by([(REPUBLISHED, "true")])
}
