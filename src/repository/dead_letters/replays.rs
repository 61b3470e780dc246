//! Replays of dead letters.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::super::{Bind, Connection, RepositoryError, statement};
use crate::event::lane_of;

/// One replay.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct Replay {
    /// Who did it.
    #[diesel(sql_type = Text)]
    pub replayed_by: String,
    /// When.
    #[diesel(sql_type = Timestamptz)]
    pub replayed_at: DateTime<Utc>,
    /// What it came to.
    #[diesel(sql_type = Text)]
    pub outcome: String,
    /// Why it failed, where it did.
    #[diesel(sql_type = Text)]
    pub detail: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Every replay of a letter, oldest first.
pub async fn replays(connection: &mut Connection, id: Uuid) -> Result<Vec<Replay>, RepositoryError> {
    let rows = statement(
        "SELECT replayed_by, replayed_at, outcome, detail FROM dead_letter_replays
         WHERE dead_letter_id = ? ORDER BY id",
    )
    .bind::<SqlUuid, _>(id)
    .get_results(connection)
    .await?;
    Ok(rows)
}

/// Keeps other replays of the letter waiting until the transaction ends, and answers how often it was put into the
/// outbox again. Call it first in the transaction.
pub async fn lock(connection: &mut Connection, id: Uuid) -> Result<i64, RepositoryError> {
    statement("SELECT id FROM dead_letters WHERE id = ? FOR NO KEY UPDATE")
        .bind::<SqlUuid, _>(id)
        .execute(connection)
        .await?;
    // A statement of its own: the first one's snapshot is older than what it waited for.
    let queued: Count = statement(
        "SELECT count(*) AS count FROM dead_letter_replays WHERE dead_letter_id = ? AND outcome = 'queued'",
    )
    .bind::<SqlUuid, _>(id)
    .get_result(connection)
    .await?;
    Ok(queued.count)
}

/// Puts the letter's record into the outbox again, for the topic that it was to go to, with the headers that it had.
pub async fn requeue(
    connection: &mut Connection,
    id: Uuid,
    key: Option<&[u8]>,
) -> Result<(), RepositoryError> {
    statement(
        "INSERT INTO outbox (lane, topic, key, value, event_id, event_type, headers)
         SELECT ?, topic, key, value, coalesce(event_id, id), 'DeadLetter', headers FROM dead_letters WHERE id = ?",
    )
    .bind::<SmallInt, _>(lane_of(key.unwrap_or_default()))
    .bind::<SqlUuid, _>(id)
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes down who replayed a letter and what it came to.
pub async fn insert_replay(
    connection: &mut Connection,
    id: Uuid,
    replayed_by: &str,
    outcome: &str,
    detail: &str,
) -> Result<(), RepositoryError> {
    statement(
        "INSERT INTO dead_letter_replays (dead_letter_id, replayed_by, outcome, detail) VALUES (?, ?, ?, ?)",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Text, _>(replayed_by)
    .bind::<Text, _>(outcome)
    .bind::<Text, _>(detail)
    .execute(connection)
    .await?;
    Ok(())
}
