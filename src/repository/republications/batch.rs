//! Batches of outbox rows, and the row that records the run.

use diesel::{
    ExpressionMethods,
    sql_types::{Array, BigInt, Binary, Json, SmallInt, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use super::super::{Bind, Connection, RepositoryError, schema::republications, statement};
use crate::event::{Headers, lane_of};

/// An event that is published again.
#[derive(Debug, Clone)]
pub struct Republished {
    /// The id of the event.
    pub event_id: Uuid,
    /// The record key: the account.
    pub key: Vec<u8>,
    /// The record value.
    pub value: Vec<u8>,
    /// The record headers.
    pub headers: Headers,
}

/// Records that a run starts: who asked for it, for what, and for how many events.
pub async fn start(
    connection: &mut Connection,
    id: Uuid,
    requested_by: &str,
    selection: &str,
    selected: i64,
) -> Result<(), RepositoryError> {
    diesel::insert_into(republications::table)
        .values((
            republications::id.eq(id),
            republications::requested_by.eq(requested_by),
            republications::selection.eq(selection),
            republications::selected.eq(selected),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

/// Puts events into the outbox, in their order for each key, and adds them to the count of the run, in one commit.
pub async fn insert_batch(
    connection: &mut Connection,
    run: Uuid,
    mut events: Vec<Republished>,
) -> Result<(), RepositoryError> {
    // The relay reads lane by lane. The sort is stable, so it keeps the order of an account.
    events.sort_by_key(|event| lane_of(&event.key));
    let lanes: Vec<i16> = events.iter().map(|event| lane_of(&event.key)).collect();
    let headers: Vec<Value> = events.iter().map(|event| event.headers.to_json()).collect();
    let ids: Vec<Uuid> = events.iter().map(|event| event.event_id).collect();
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    let (keys, values): (Vec<Vec<u8>>, Vec<Vec<u8>>) =
        events.into_iter().map(|event| (event.key, event.value)).unzip();
    statement(include_str!("insert_batch.sql"))
        .bind::<Array<SmallInt>, _>(lanes)
        .bind::<Array<Binary>, _>(keys)
        .bind::<Array<Binary>, _>(values)
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<Json>, _>(headers)
        .bind::<SqlUuid, _>(run)
        .bind::<BigInt, _>(count)
        .execute(connection)
        .await?;
    Ok(())
}
