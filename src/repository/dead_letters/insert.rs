//! Dead letters: records that could not be handled, kept whole beside the reason, and sent on in the same commit.

use diesel::sql_types::{BigInt, Binary, Integer, Json, Nullable, SmallInt, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::super::{Bind, Connection, RepositoryError, positions::PartitionName, statement};
use crate::event::{Headers, TRANSACTIONS_DEAD_LETTER_TOPIC, lane_of};

/// A record to put aside.
#[derive(Debug, Clone)]
pub struct NewDeadLetter {
    /// Of the row, and of the outbox row.
    pub id: Uuid,
    /// Who could not handle it, and where it was.
    pub source: PartitionName,
    /// Where in the partition.
    pub offset: i64,
    /// As it came.
    pub key: Option<Vec<u8>>,
    /// As it came.
    pub value: Option<Vec<u8>>,
    /// As they came.
    pub headers: Headers,
    /// What the handler was doing: `decode`, `ledger`, `score`, `process`.
    pub stage: String,
    /// A word for metrics and filters.
    pub reason: String,
    /// What went wrong, for a person.
    pub error: String,
    /// How often it was tried.
    pub attempts: i32,
    /// The event's id, if it could be read.
    pub event_id: Option<Uuid>,
    /// What is sent: the headers as they came, and where and why.
    pub outgoing_headers: Headers,
}

/// Keeps the record and puts it into the outbox for the dead-letter topic. A record that was put aside before is left
/// as it is.
pub async fn insert(connection: &mut Connection, letter: &NewDeadLetter) -> Result<(), RepositoryError> {
    let inserted = statement(
        "INSERT INTO dead_letters (id, consumer_group, topic, partition, record_offset, key, value, headers, stage,
                                   reason, error, attempts, event_id)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (consumer_group, topic, partition, record_offset) WHERE record_offset IS NOT NULL DO NOTHING",
    )
    .bind::<SqlUuid, _>(letter.id)
    .bind::<Text, _>(&letter.source.group)
    .bind::<Text, _>(&letter.source.topic)
    .bind::<Nullable<Integer>, _>(Some(letter.source.partition))
    .bind::<Nullable<BigInt>, _>(Some(letter.offset))
    .bind::<Nullable<Binary>, _>(&letter.key)
    .bind::<Nullable<Binary>, _>(&letter.value)
    .bind::<Json, _>(letter.headers.to_json())
    .bind::<Text, _>(&letter.stage)
    .bind::<Text, _>(&letter.reason)
    .bind::<Text, _>(&letter.error)
    .bind::<Integer, _>(letter.attempts)
    .bind::<Nullable<SqlUuid>, _>(letter.event_id)
    .execute(connection)
    .await?;
    if inserted == 0 {
        return Ok(());
    }
    statement(
        "INSERT INTO outbox (lane, topic, key, value, event_id, event_type, headers)
         VALUES (?, ?, ?, ?, ?, 'DeadLetter', ?)",
    )
    .bind::<SmallInt, _>(lane_of(letter.key.as_deref().unwrap_or_default()))
    .bind::<Text, _>(TRANSACTIONS_DEAD_LETTER_TOPIC)
    .bind::<Nullable<Binary>, _>(&letter.key)
    .bind::<Nullable<Binary>, _>(&letter.value)
    .bind::<SqlUuid, _>(letter.id)
    .bind::<Nullable<Json>, _>(Some(letter.outgoing_headers.to_json()))
    .execute(connection)
    .await?;
    Ok(())
}
