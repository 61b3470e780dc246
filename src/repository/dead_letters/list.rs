//! Lists and look-ups of dead letters.

use chrono::{DateTime, Utc};
use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{BigInt, Binary, Bool, Integer, Json, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use super::super::{Bind, Connection, RepositoryError, statement};

/// Which letters are meant; a field that is None leaves all.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterFilter {
    /// Who gave it up: a consumer group, or `relay`.
    pub group: Option<String>,
    /// Where the record was, or was to go.
    pub topic: Option<String>,
    /// The word for why.
    pub reason: Option<String>,
    /// Put aside at this moment or later.
    pub since: Option<DateTime<Utc>>,
    /// Put aside before this moment.
    pub until: Option<DateTime<Utc>>,
    /// Only those that no replay has settled.
    pub only_open: bool,
}

/// A letter without its record.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct DeadLetter {
    /// Its id; that of the record in the dead-letter topic too.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// Who gave it up.
    #[diesel(sql_type = Text)]
    pub consumer_group: String,
    /// Where the record was, or was to go.
    #[diesel(sql_type = Text)]
    pub topic: String,
    /// Its partition.
    #[diesel(sql_type = Nullable<Integer>)]
    pub partition: Option<i32>,
    /// Its offset; None if it was never published.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub record_offset: Option<i64>,
    /// What the handler was doing.
    #[diesel(sql_type = Text)]
    pub stage: String,
    /// A word for metrics and filters.
    #[diesel(sql_type = Text)]
    pub reason: String,
    /// For a person.
    #[diesel(sql_type = Text)]
    pub error: String,
    /// How often it was tried before it was put aside.
    #[diesel(sql_type = Integer)]
    pub attempts: i32,
    /// The event's id, if it could be read.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub event_id: Option<Uuid>,
    /// When it was put aside.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// How often it was replayed.
    #[diesel(sql_type = BigInt)]
    pub replays: i64,
    /// What the last replay came to.
    #[diesel(sql_type = Nullable<Text>)]
    pub outcome: Option<String>,
}

/// A letter's record as it came.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct DeadLetterRecord {
    /// Record key.
    #[diesel(sql_type = Nullable<Binary>)]
    pub key: Option<Vec<u8>>,
    /// Record value.
    #[diesel(sql_type = Nullable<Binary>)]
    pub value: Option<Vec<u8>>,
    /// Headers as `event::Headers::to_json` writes them.
    #[diesel(sql_type = Json)]
    pub headers: Value,
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

#[derive(QueryableByName)]
struct Now {
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
}

/// The newest letters that `filter` leaves, or those older than `before`.
pub async fn newest(
    connection: &mut Connection,
    filter: &DeadLetterFilter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<DeadLetter>, RepositoryError> {
    let rows = statement(
        "SELECT d.id, d.consumer_group, d.topic, d.partition, d.record_offset, d.stage, d.reason, d.error, d.attempts,
                d.event_id, d.created_at, r.replays, r.outcome
         FROM dead_letters d
         CROSS JOIN LATERAL (
           SELECT count(*) AS replays, (array_agg(outcome ORDER BY id DESC))[1] AS outcome,
                  coalesce(bool_or(outcome <> 'failing'), false) AS is_settled
           FROM dead_letter_replays WHERE dead_letter_id = d.id) r
         WHERE (d.created_at, d.id) < (
             coalesce((SELECT b.created_at FROM dead_letters b WHERE b.id = ?), 'infinity'),
             coalesce(?, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
           AND d.created_at >= coalesce(?, '-infinity') AND d.created_at < coalesce(?, 'infinity')
           AND d.consumer_group = coalesce(?, d.consumer_group) AND d.topic = coalesce(?, d.topic)
           AND d.reason = coalesce(?, d.reason) AND NOT (? AND r.is_settled)
         ORDER BY d.created_at DESC, d.id DESC LIMIT ?",
    )
    .bind::<Nullable<SqlUuid>, _>(before)
    .bind::<Nullable<SqlUuid>, _>(before)
    .bind::<Nullable<Timestamptz>, _>(filter.since)
    .bind::<Nullable<Timestamptz>, _>(filter.until)
    .bind::<Nullable<Text>, _>(&filter.group)
    .bind::<Nullable<Text>, _>(&filter.topic)
    .bind::<Nullable<Text>, _>(&filter.reason)
    .bind::<Bool, _>(filter.only_open)
    .bind::<BigInt, _>(limit)
    .get_results(connection)
    .await?;
    Ok(rows)
}

/// Ids of the oldest letters that `filter` leaves, or of those put aside after `after`, in the order in which they were
/// put aside.
pub async fn oldest_ids(
    connection: &mut Connection,
    filter: &DeadLetterFilter,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Uuid>, RepositoryError> {
    let rows: Vec<Id> = statement(
        "SELECT d.id FROM dead_letters d
         WHERE (d.created_at, d.id) > (
             coalesce((SELECT a.created_at FROM dead_letters a WHERE a.id = ?), '-infinity'),
             coalesce(?, '00000000-0000-0000-0000-000000000000'::uuid))
           AND d.created_at >= coalesce(?, '-infinity') AND d.created_at < coalesce(?, 'infinity')
           AND d.consumer_group = coalesce(?, d.consumer_group) AND d.topic = coalesce(?, d.topic)
           AND d.reason = coalesce(?, d.reason)
           AND NOT (? AND EXISTS (SELECT FROM dead_letter_replays r
                                  WHERE r.dead_letter_id = d.id AND r.outcome <> 'failing'))
         ORDER BY d.created_at, d.id LIMIT ?",
    )
    .bind::<Nullable<SqlUuid>, _>(after)
    .bind::<Nullable<SqlUuid>, _>(after)
    .bind::<Nullable<Timestamptz>, _>(filter.since)
    .bind::<Nullable<Timestamptz>, _>(filter.until)
    .bind::<Nullable<Text>, _>(&filter.group)
    .bind::<Nullable<Text>, _>(&filter.topic)
    .bind::<Nullable<Text>, _>(&filter.reason)
    .bind::<Bool, _>(filter.only_open)
    .bind::<BigInt, _>(limit)
    .get_results(connection)
    .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// The moment by the clock that letters are dated with.
pub async fn now(connection: &mut Connection) -> Result<DateTime<Utc>, RepositoryError> {
    let now: Now = statement("SELECT clock_timestamp() AS now").get_result(connection).await?;
    Ok(now.now)
}

/// One letter without its record.
pub async fn find(connection: &mut Connection, id: Uuid) -> Result<Option<DeadLetter>, RepositoryError> {
    let row = statement(
        "SELECT d.id, d.consumer_group, d.topic, d.partition, d.record_offset, d.stage, d.reason, d.error, d.attempts,
                d.event_id, d.created_at, r.replays, r.outcome
         FROM dead_letters d
         CROSS JOIN LATERAL (
           SELECT count(*) AS replays, (array_agg(outcome ORDER BY id DESC))[1] AS outcome
           FROM dead_letter_replays WHERE dead_letter_id = d.id) r
         WHERE d.id = ?",
    )
    .bind::<SqlUuid, _>(id)
    .get_result(connection)
    .await
    .optional()?;
    Ok(row)
}

/// The record of a letter that is there.
pub async fn record(connection: &mut Connection, id: Uuid) -> Result<DeadLetterRecord, RepositoryError> {
    let record = statement("SELECT key, value, headers FROM dead_letters WHERE id = ?")
        .bind::<SqlUuid, _>(id)
        .get_result(connection)
        .await?;
    Ok(record)
}
