//! Replays of dead letters: the lock, the new outbox row, and the row that records the outcome.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, Insertable, IntoSql, NullableExpressionMethods, OptionalExtension, QueryDsl,
    Queryable, Selectable, SelectableHelper,
    sql_types::{SmallInt, Text},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::super::{
    Connection, RepositoryError,
    functions::coalesce_uuid,
    schema::{dead_letter_replays, dead_letters, outbox},
};
use crate::event::lane_of;

/// The outcome of a replay that changed nothing. After any other outcome the dead letter is no longer open.
pub(super) const FAILING: &str = "failing";
/// The outcome of a dismissal, which is no replay.
pub(super) const DISMISSED: &str = "dismissed";
const QUEUED: &str = "queued";

/// A replay, or a dismissal.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = dead_letter_replays)]
pub struct Replay {
    /// The person or program that replayed the dead letter.
    pub replayed_by: String,
    /// The time.
    pub replayed_at: DateTime<Utc>,
    /// The outcome as a word.
    pub outcome: String,
    /// The error of a replay that failed, or the note of a dismissal.
    pub detail: String,
}

#[derive(Insertable)]
#[diesel(table_name = dead_letter_replays)]
struct NewReplay<'a> {
    dead_letter_id: Uuid,
    replayed_by: &'a str,
    outcome: &'a str,
    detail: &'a str,
}

/// Returns all replays of a dead letter and its dismissal, oldest first.
pub async fn replays(connection: &mut Connection, id: Uuid) -> Result<Vec<Replay>, RepositoryError> {
    let replays = dead_letter_replays::table
        .filter(dead_letter_replays::dead_letter_id.eq(id))
        .order(dead_letter_replays::id)
        .select(Replay::as_select())
        .load(connection)
        .await?;
    Ok(replays)
}

/// Locks the dead letter against other replays until the database transaction ends, and returns how often it was put
/// into the outbox again. Call it first in the transaction.
pub async fn lock(connection: &mut Connection, id: Uuid) -> Result<i64, RepositoryError> {
    dead_letters::table
        .find(id)
        .select(dead_letters::id)
        .for_no_key_update()
        .first::<Uuid>(connection)
        .await
        .optional()?;
    // A second statement, because the snapshot of the first one is older than the lock.
    let queued = dead_letter_replays::table
        .filter(dead_letter_replays::dead_letter_id.eq(id))
        .filter(dead_letter_replays::outcome.eq(QUEUED))
        .count()
        .get_result(connection)
        .await?;
    Ok(queued)
}

/// Puts the record of the dead letter into the outbox again, for its topic, with its headers.
pub async fn requeue(
    connection: &mut Connection,
    id: Uuid,
    key: Option<&[u8]>,
) -> Result<(), RepositoryError> {
    let record = dead_letters::table.filter(dead_letters::id.eq(id)).select((
        lane_of(key.unwrap_or_default()).into_sql::<SmallInt>(),
        dead_letters::topic,
        dead_letters::key,
        dead_letters::value,
        coalesce_uuid(dead_letters::event_id, dead_letters::id),
        "DeadLetter".into_sql::<Text>(),
        dead_letters::headers.nullable(),
    ));
    record
        .insert_into(outbox::table)
        .into_columns((
            outbox::lane,
            outbox::topic,
            outbox::key,
            outbox::value,
            outbox::event_id,
            outbox::event_type,
            outbox::headers,
        ))
        .execute(connection)
        .await?;
    Ok(())
}

/// Records a replay and its outcome.
pub async fn insert_replay(
    connection: &mut Connection,
    dead_letter_id: Uuid,
    replayed_by: &str,
    outcome: &str,
    detail: &str,
) -> Result<(), RepositoryError> {
    diesel::insert_into(dead_letter_replays::table)
        .values(NewReplay { dead_letter_id, replayed_by, outcome, detail })
        .execute(connection)
        .await?;
    Ok(())
}
