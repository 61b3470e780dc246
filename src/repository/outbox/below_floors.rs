//! The search for rows below the scan floors.

use std::time::Duration;

use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{Array, BigInt, SmallInt},
};
use diesel_async::RunQueryDsl;

use super::super::{Bind, Connection, RepositoryError, statement, transaction};
use crate::event::LANES;

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

/// Returns the id of a row below the scan floor of its lane, or None if there is none. `floors` are those of all lanes.
///
/// Below a floor there may be a million dead index entries. So the search ends after `time_max`, and then finds nothing.
pub async fn id_below_floors(
    connection: &mut Connection,
    floors: &[i64],
    time_max: Duration,
) -> Result<Option<i64>, RepositoryError> {
    let lanes: Vec<i16> = (0..LANES).collect();
    let limit = format!("SET LOCAL statement_timeout = {}", time_max.as_millis());
    let (lanes, limit) = (lanes.as_slice(), limit.as_str());
    let found = transaction("search below floors", connection, async |connection: &mut Connection| {
        diesel::sql_query(limit).execute(connection).await?;
        let found: Option<Id> = statement(include_str!("id_below_floors.sql"))
            .bind::<Array<SmallInt>, _>(lanes)
            .bind::<Array<BigInt>, _>(floors)
            .get_result(connection)
            .await
            .optional()?;
        Ok(found.map(|row| row.id))
    })
    .await;
    match found {
        Err(error) if error.is_statement_timeout() => Ok(None),
        found => found,
    }
}
