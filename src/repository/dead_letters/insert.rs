//! Dead-letters records of one partition.

use diesel::{
    BoolExpressionMethods, ExpressionMethods,
    dsl::not,
    sql_types::{Array, BigInt, Binary, Integer, Json, Nullable, SmallInt, Text, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use super::super::{
    Bind, Connection, RepositoryError, positions::PartitionName, schema::dead_letters, statement,
};
use crate::event::{Headers, lane_of};

/// A record to dead-letter.
#[derive(Debug, Clone)]
pub struct NewDeadLetter {
    /// The id of the dead letter and of its event.
    pub id: Uuid,
    /// The record's offset.
    pub offset: i64,
    /// The record's leader epoch (Kafka only).
    pub leader_epoch: Option<i32>,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// The record's headers.
    pub headers: Headers,
    /// The step that failed: `decode`, `ledger`, `score` or `process`.
    pub stage: &'static str,
    /// The reason as a word for metrics and filters.
    pub reason: &'static str,
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

/// The binds of the statement: one array for each column, with one element for each record.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    offsets: Vec<i64>,
    leader_epochs: Vec<Option<i32>>,
    keys: Vec<Option<&'a [u8]>>,
    values: Vec<Option<&'a [u8]>>,
    headers: Vec<Value>,
    stages: Vec<&'a str>,
    reasons: Vec<&'a str>,
    errors: Vec<&'a str>,
    attempts: Vec<i32>,
    event_ids: Vec<Option<Uuid>>,
    lanes: Vec<i16>,
    outgoing_headers: Vec<Value>,
}

impl<'a> Columns<'a> {
    /// Sorts the records by lane, and keeps their order within a lane: a relay reads one lane at a time.
    fn of(letters: &'a [NewDeadLetter]) -> Self {
        let lane = |letter: &'a NewDeadLetter| (lane_of(letter.key.as_deref().unwrap_or_default()), letter);
        let mut rows: Vec<(i16, &NewDeadLetter)> = letters.iter().map(lane).collect();
        rows.sort_by_key(|(lane, _)| *lane);
        let mut columns = Self::default();
        for (lane, letter) in rows {
            columns.ids.push(letter.id);
            columns.offsets.push(letter.offset);
            columns.leader_epochs.push(letter.leader_epoch);
            columns.keys.push(letter.key.as_deref());
            columns.values.push(letter.value.as_deref());
            columns.headers.push(letter.headers.to_json());
            columns.stages.push(letter.stage);
            columns.reasons.push(letter.reason);
            columns.errors.push(&letter.error);
            columns.attempts.push(letter.attempts);
            columns.event_ids.push(letter.event_id);
            columns.lanes.push(lane);
            columns.outgoing_headers.push(letter.outgoing_headers.to_json());
        }
        columns
    }
}

/// Inserts dead letters that the group of `source` gave up, and an outbox row for the dead-letter topic for each of them.
/// Changes nothing for a record that is already dead-lettered. A record is known by its offset and leader epoch: a log
/// that lost its end holds other records at the same offsets.
pub async fn insert(
    connection: &mut Connection,
    source: &PartitionName,
    letters: &[NewDeadLetter],
) -> Result<(), RepositoryError> {
    if letters.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(letters);
    statement(include_str!("insert.sql"))
        .bind::<Array<SqlUuid>, _>(columns.ids)
        .bind::<Text, _>(&source.group)
        .bind::<Text, _>(&source.topic)
        .bind::<Integer, _>(source.partition)
        .bind::<Array<BigInt>, _>(columns.offsets)
        .bind::<Array<Nullable<Binary>>, _>(columns.keys)
        .bind::<Array<Nullable<Binary>>, _>(columns.values)
        .bind::<Array<Json>, _>(columns.headers)
        .bind::<Array<Text>, _>(columns.stages)
        .bind::<Array<Text>, _>(columns.reasons)
        .bind::<Array<Text>, _>(columns.errors)
        .bind::<Array<Integer>, _>(columns.attempts)
        .bind::<Array<Nullable<SqlUuid>>, _>(columns.event_ids)
        .bind::<Array<SmallInt>, _>(columns.lanes)
        .bind::<Array<Json>, _>(columns.outgoing_headers)
        .bind::<Array<Nullable<Integer>>, _>(columns.leader_epochs)
        .execute(connection)
        .await?;
    Ok(())
}

/// Notes that the offsets of a partition's dead letters belong to an earlier log, so that records of its new log at the same
/// offsets can be dead-lettered too.
pub async fn leave_log(connection: &mut Connection, name: &PartitionName) -> Result<(), RepositoryError> {
    diesel::update(dead_letters::table)
        .filter(dead_letters::record_offset.is_not_null().and(not(dead_letters::of_earlier_log)))
        .filter(dead_letters::consumer_group.eq(&name.group))
        .filter(dead_letters::topic.eq(&name.topic))
        .filter(dead_letters::partition.eq(name.partition))
        .set(dead_letters::of_earlier_log.eq(true))
        .execute(connection)
        .await?;
    Ok(())
}

/// Does the same for all dead letters, when the broker is switched.
pub async fn leave_all_logs(connection: &mut Connection) -> Result<(), RepositoryError> {
    diesel::update(dead_letters::table)
        .filter(dead_letters::record_offset.is_not_null().and(not(dead_letters::of_earlier_log)))
        .set(dead_letters::of_earlier_log.eq(true))
        .execute(connection)
        .await?;
    Ok(())
}
