//! CloudEvents 1.0 attributes as record headers (Kafka protocol binding, binary content mode).

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::headers::Headers;
use crate::domain::format_moment;

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
