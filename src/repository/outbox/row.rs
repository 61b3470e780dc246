//! Rows of the outbox.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Binary, Json, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use serde_json::Value;
use uuid::Uuid;

use crate::event::Headers;

/// A row that waits to be published.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct OutboxRow {
    /// Which lane it belongs to.
    #[diesel(sql_type = SmallInt)]
    pub lane: i16,
    /// Its place in the lane.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Where it goes.
    #[diesel(sql_type = Text)]
    pub topic: String,
    /// Decides the partition.
    #[diesel(sql_type = Nullable<Binary>)]
    pub key: Option<Vec<u8>>,
    /// Sent as it is.
    #[diesel(sql_type = Nullable<Binary>)]
    pub value: Option<Vec<u8>>,
    /// The CloudEvents id.
    #[diesel(sql_type = SqlUuid)]
    pub event_id: Uuid,
    /// The CloudEvents type.
    #[diesel(sql_type = Text)]
    pub event_type: String,
    /// The CloudEvents time: when what it tells of happened.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// W3C trace context of the request that caused it.
    #[diesel(sql_type = Nullable<Text>)]
    pub traceparent: Option<String>,
    /// As `event::Headers::to_json` writes them: sent instead of the CloudEvents ones.
    #[diesel(sql_type = Nullable<Json>)]
    pub headers: Option<Value>,
}

/// Which row: its place, and what stands there. After a failover that lost the last commits, another may stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxRowId {
    /// Its lane.
    pub lane: i16,
    /// Its place in the lane.
    pub id: i64,
    /// The event.
    pub event_id: Uuid,
}

impl OutboxRow {
    /// Tells it from all others.
    pub fn row_id(&self) -> OutboxRowId {
        OutboxRowId { lane: self.lane, id: self.id, event_id: self.event_id }
    }

    /// Of key and value.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.value)
    }
}

/// A row without what is to be sent.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct OutboxAddress {
    /// Which lane it belongs to.
    #[diesel(sql_type = SmallInt)]
    pub lane: i16,
    /// Its place in the lane.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Where it goes.
    #[diesel(sql_type = Text)]
    pub topic: String,
    /// Decides the partition.
    #[diesel(sql_type = Nullable<Binary>)]
    pub key: Option<Vec<u8>>,
}

/// A row that cannot be published, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectedRow {
    /// The row.
    pub row: OutboxRow,
    /// Headers as they would have been sent.
    pub headers: Headers,
    /// Where it would have gone.
    pub partition: i32,
    /// A word for metrics and filters.
    pub reason: &'static str,
    /// For people.
    pub error: String,
}
