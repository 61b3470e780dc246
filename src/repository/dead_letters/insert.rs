//! Dead-letters a record of a topic.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, dsl::not, query_builder::DecoratableTarget,
};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use super::super::{
    Connection, RepositoryError,
    positions::PartitionName,
    schema::{dead_letters, outbox},
};
use crate::event::{Headers, TRANSACTIONS_DEAD_LETTER_TOPIC, lane_of};

/// A record to dead-letter.
#[derive(Debug, Clone)]
pub struct NewDeadLetter {
    /// The id of the dead letter and of its event.
    pub id: Uuid,
    /// The consumer group that gave the record up, and the record's partition.
    pub source: PartitionName,
    /// The record's offset.
    pub offset: i64,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// The record's headers.
    pub headers: Headers,
    /// The step that failed: `decode`, `ledger`, `score` or `process`.
    pub stage: String,
    /// The reason as a word for metrics and filters.
    pub reason: String,
    /// The error as a text for people.
    pub error: String,
    /// How often the record was attempted.
    pub attempts: i32,
    /// The event's id, if it could be read.
    pub event_id: Option<Uuid>,
    /// The headers to publish: the record's headers, then headers with the record's origin and the reason of the
    /// failure.
    pub outgoing_headers: Headers,
}

#[derive(Insertable)]
#[diesel(table_name = dead_letters)]
struct DeadLetterRow<'a> {
    id: Uuid,
    consumer_group: &'a str,
    topic: &'a str,
    partition: i32,
    record_offset: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Value,
    stage: &'a str,
    reason: &'a str,
    error: &'a str,
    attempts: i32,
    event_id: Option<Uuid>,
}

/// Inserts the dead letter, and an outbox row for the dead-letter topic. Changes nothing if the record is already
/// dead-lettered.
pub async fn insert(connection: &mut Connection, letter: &NewDeadLetter) -> Result<(), RepositoryError> {
    let row = DeadLetterRow {
        id: letter.id,
        consumer_group: &letter.source.group,
        topic: &letter.source.topic,
        partition: letter.source.partition,
        record_offset: letter.offset,
        key: letter.key.as_deref(),
        value: letter.value.as_deref(),
        headers: letter.headers.to_json(),
        stage: &letter.stage,
        reason: &letter.reason,
        error: &letter.error,
        attempts: letter.attempts,
        event_id: letter.event_id,
    };
    let inserted = diesel::insert_into(dead_letters::table)
        .values(row)
        .on_conflict((
            dead_letters::consumer_group,
            dead_letters::topic,
            dead_letters::partition,
            dead_letters::record_offset,
        ))
        .filter_target(dead_letters::record_offset.is_not_null().and(not(dead_letters::of_earlier_broker)))
        .do_nothing()
        .execute(connection)
        .await?;
    if inserted == 0 {
        return Ok(());
    }
    diesel::insert_into(outbox::table)
        .values((
            outbox::lane.eq(lane_of(letter.key.as_deref().unwrap_or_default())),
            outbox::topic.eq(TRANSACTIONS_DEAD_LETTER_TOPIC),
            outbox::key.eq(&letter.key),
            outbox::value.eq(&letter.value),
            outbox::event_id.eq(letter.id),
            outbox::event_type.eq("DeadLetter"),
            outbox::headers.eq(letter.outgoing_headers.to_json()),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

/// Notes that the offsets of all dead letters belong to the broker before a switch, so that records of the new broker at
/// the same offsets can be dead-lettered too.
pub async fn leave_behind(connection: &mut Connection) -> Result<(), RepositoryError> {
    diesel::update(dead_letters::table)
        .filter(dead_letters::record_offset.is_not_null().and(not(dead_letters::of_earlier_broker)))
        .set(dead_letters::of_earlier_broker.eq(true))
        .execute(connection)
        .await?;
    Ok(())
}
