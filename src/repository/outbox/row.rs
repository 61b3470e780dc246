//! The rows of the outbox.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Binary, Json, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use serde_json::Value;
use uuid::Uuid;

use crate::event::Headers;

/// A row that waits to be published.
#[derive(Debug, Clone, Default, PartialEq, QueryableByName)]
pub struct OutboxRow {
    /// The lane.
    #[diesel(sql_type = SmallInt)]
    pub lane: i16,
    /// The id; rows of a lane are published in the order of their ids.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// The topic to publish to.
    #[diesel(sql_type = Text)]
    pub topic: String,
    /// The record key, which decides the partition.
    #[diesel(sql_type = Nullable<Binary>)]
    pub key: Option<Vec<u8>>,
    /// The record value, published unchanged.
    #[diesel(sql_type = Nullable<Binary>)]
    pub value: Option<Vec<u8>>,
    /// The CloudEvents id.
    #[diesel(sql_type = SqlUuid)]
    pub event_id: Uuid,
    /// The CloudEvents type.
    #[diesel(sql_type = Text)]
    pub event_type: String,
    /// The CloudEvents time: when the event happened.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// The W3C trace context of the request that caused the event.
    #[diesel(sql_type = Nullable<Text>)]
    pub traceparent: Option<String>,
    /// The headers to publish instead of the CloudEvents headers, in the form of `event::Headers::to_json`.
    #[diesel(sql_type = Nullable<Json>)]
    pub headers: Option<Value>,
}

/// The identity of a row: its key, and its event. After a failover that lost the last commits, another event may have
/// the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxRowId {
    /// The lane.
    pub lane: i16,
    /// The id in the lane.
    pub id: i64,
    /// The event's id.
    pub event_id: Uuid,
}

impl OutboxRow {
    /// Returns the identity of the row.
    pub fn row_id(&self) -> OutboxRowId {
        OutboxRowId { lane: self.lane, id: self.id, event_id: self.event_id }
    }

    /// Returns the size of key and value in bytes.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.value)
    }
}

/// A row without its value and headers.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct OutboxAddress {
    /// The lane.
    #[diesel(sql_type = SmallInt)]
    pub lane: i16,
    /// The id in the lane.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// The topic to publish to.
    #[diesel(sql_type = Text)]
    pub topic: String,
    /// The record key, which decides the partition.
    #[diesel(sql_type = Nullable<Binary>)]
    pub key: Option<Vec<u8>>,
}

/// A row that cannot be published, with the reason.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectedRow {
    /// The row.
    pub row: OutboxRow,
    /// The headers that it was to be published with.
    pub headers: Headers,
    /// The partition that it was to be published to.
    pub partition: i32,
    /// The reason as a word for metrics and filters.
    pub reason: &'static str,
    /// The error as a text for people.
    pub error: String,
}
