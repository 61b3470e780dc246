//! Lists and look-ups of dead letters.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, IntoSql, NullableExpressionMethods, OptionalExtension, QueryDsl, Queryable,
    Selectable, SelectableHelper,
    dsl::{AsExprOf, count_star, exists, not},
    pg::Pg,
    sql_types::{Record, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use super::{
    super::{
        Connection, RepositoryError,
        functions::clock_timestamp,
        schema::{dead_letter_replays, dead_letters},
    },
    replays::{DISMISSED, FAILING},
};

/// The conditions of a list; a field that is None does not filter.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterFilter {
    /// Given up by this consumer group, or by `relay`.
    pub group: Option<String>,
    /// The topic of the record, or of the outbox row that was never published.
    pub topic: Option<String>,
    /// The reason.
    pub reason: Option<String>,
    /// Dead-lettered at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Dead-lettered before this time.
    pub until: Option<DateTime<Utc>>,
    /// Only open dead letters, or only those that a replay or a dismissal has handled.
    pub is_open: Option<bool>,
}

/// A dead letter without its record.
#[derive(Debug, Clone, PartialEq, Queryable)]
pub struct DeadLetter {
    /// The id, also that of the record in the dead-letter topic.
    pub id: Uuid,
    /// The consumer group that gave the record up, or `relay`.
    pub consumer_group: String,
    /// The topic of the record, or of the outbox row that was never published.
    pub topic: String,
    /// The partition.
    pub partition: Option<i32>,
    /// The offset; None for an outbox row that was never published.
    pub record_offset: Option<i64>,
    /// The step that failed.
    pub stage: String,
    /// The reason as a word for metrics and filters.
    pub reason: String,
    /// The error as a text for people.
    pub error: String,
    /// How often the record was attempted before it was given up.
    pub attempts: i32,
    /// The event's id, if it could be read.
    pub event_id: Option<Uuid>,
    /// When the record was dead-lettered.
    pub created_at: DateTime<Utc>,
    /// How often the dead letter was replayed.
    pub replays: i64,
    /// The outcome of the last replay, or `dismissed`.
    pub outcome: Option<String>,
}

/// The record of a dead letter, unchanged.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = dead_letters)]
pub struct DeadLetterRecord {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers in the form of `event::Headers::to_json`.
    pub headers: Value,
}

type Query<'a> = dead_letters::BoxedQuery<'a, Pg>;

/// Returns the newest dead letters that match, or those older than `before`.
pub async fn newest(
    connection: &mut Connection,
    filter: &DeadLetterFilter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<DeadLetter>, RepositoryError> {
    let mut letters = matching(filter);
    if let Some(position) = position(connection, before).await? {
        letters = letters.filter(time_and_id().lt(position));
    }
    let letters = letters.order((dead_letters::created_at.desc(), dead_letters::id.desc())).limit(limit);
    load(connection, letters).await
}

/// Returns the ids of the oldest dead letters that match, or of those newer than `after`, oldest first.
pub async fn oldest_ids(
    connection: &mut Connection,
    filter: &DeadLetterFilter,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Uuid>, RepositoryError> {
    let mut letters = matching(filter);
    if let Some(position) = position(connection, after).await? {
        letters = letters.filter(time_and_id().gt(position));
    }
    let ids = letters
        .order((dead_letters::created_at, dead_letters::id))
        .limit(limit)
        .select(dead_letters::id)
        .load(connection)
        .await?;
    Ok(ids)
}

/// Returns one dead letter.
pub async fn find(connection: &mut Connection, id: Uuid) -> Result<Option<DeadLetter>, RepositoryError> {
    let letter = dead_letters::table.filter(dead_letters::id.eq(id)).into_boxed();
    Ok(load(connection, letter).await?.pop())
}

/// Returns the record of a dead letter that exists.
pub async fn record(connection: &mut Connection, id: Uuid) -> Result<DeadLetterRecord, RepositoryError> {
    let record = dead_letters::table.find(id).select(DeadLetterRecord::as_select()).first(connection).await?;
    Ok(record)
}

/// Returns the current time of the database clock, which also dates dead letters.
pub async fn now(connection: &mut Connection) -> Result<DateTime<Utc>, RepositoryError> {
    Ok(diesel::select(clock_timestamp()).get_result(connection).await?)
}

fn matching(filter: &DeadLetterFilter) -> Query<'_> {
    let mut letters = dead_letters::table.into_boxed();
    if let Some(group) = &filter.group {
        letters = letters.filter(dead_letters::consumer_group.eq(group));
    }
    if let Some(topic) = &filter.topic {
        letters = letters.filter(dead_letters::topic.eq(topic));
    }
    if let Some(reason) = &filter.reason {
        letters = letters.filter(dead_letters::reason.eq(reason));
    }
    if let Some(since) = filter.since {
        letters = letters.filter(dead_letters::created_at.ge(since));
    }
    if let Some(until) = filter.until {
        letters = letters.filter(dead_letters::created_at.lt(until));
    }
    let handled = dead_letter_replays::table
        .filter(dead_letter_replays::dead_letter_id.eq(dead_letters::id))
        .filter(dead_letter_replays::outcome.ne(FAILING));
    match filter.is_open {
        None => {}
        Some(true) => letters = letters.filter(not(exists(handled))),
        Some(false) => letters = letters.filter(exists(handled)),
    }
    letters
}

/// The order of the lists as a row value, so that the index on time serves the comparison with a position.
fn time_and_id() -> AsExprOf<(dead_letters::created_at, dead_letters::id), Record<(Timestamptz, SqlUuid)>> {
    (dead_letters::created_at, dead_letters::id).into_sql::<Record<(Timestamptz, SqlUuid)>>()
}

/// Returns the position of a dead letter in the lists; None if it does not exist.
async fn position(
    connection: &mut Connection,
    id: Option<Uuid>,
) -> Result<Option<(DateTime<Utc>, Uuid)>, RepositoryError> {
    let Some(id) = id else { return Ok(None) };
    let columns = (dead_letters::created_at, dead_letters::id);
    Ok(dead_letters::table.find(id).select(columns).first(connection).await.optional()?)
}

async fn load(connection: &mut Connection, letters: Query<'_>) -> Result<Vec<DeadLetter>, RepositoryError> {
    let replays =
        || dead_letter_replays::table.filter(dead_letter_replays::dead_letter_id.eq(dead_letters::id));
    let last_outcome =
        replays().order(dead_letter_replays::id.desc()).select(dead_letter_replays::outcome).single_value();
    let rows = letters
        .select((
            dead_letters::id,
            dead_letters::consumer_group,
            dead_letters::topic,
            dead_letters::partition,
            dead_letters::record_offset,
            dead_letters::stage,
            dead_letters::reason,
            dead_letters::error,
            dead_letters::attempts,
            dead_letters::event_id,
            dead_letters::created_at,
            replays()
                .filter(dead_letter_replays::outcome.ne(DISMISSED))
                .select(count_star())
                .single_value()
                .assume_not_null(),
            last_outcome,
        ))
        .load(connection)
        .await?;
    Ok(rows)
}
