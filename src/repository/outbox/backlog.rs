//! The sizes and ages of the outbox and its lanes.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Double, Nullable, SmallInt, Text},
};
use diesel_async::RunQueryDsl;

use super::super::{Bind, Connection, RepositoryError, statement};
use crate::event::LANES;

/// The size and the age of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, QueryableByName)]
pub struct Backlog {
    /// The number of rows: exact for a small outbox, PostgreSQL's estimate for a large one.
    #[diesel(sql_type = BigInt)]
    pub rows: i64,
    /// The age of the oldest first row of a lane; 0 for an empty outbox.
    #[diesel(sql_type = Double)]
    pub oldest_age_seconds: f64,
}

/// How many rows of a lane [`backlog`] counts at most.
const COUNTED_PER_LANE_MAX: i64 = 250;

/// Returns the size and the age of the outbox from the scan floors of all lanes on; a floor is 0 where it is unknown. With
/// them the query reads a few thousand index entries at most. [`super::id_below_floors`] finds rows below them.
pub async fn backlog(connection: &mut Connection, floors: &[i64]) -> Result<Backlog, RepositoryError> {
    let lanes: Vec<i16> = (0..LANES).collect();
    let backlog = statement(include_str!("backlog.sql"))
        .bind::<Array<SmallInt>, _>(lanes)
        .bind::<Array<BigInt>, _>(floors)
        .bind::<BigInt, _>(COUNTED_PER_LANE_MAX)
        .get_result(connection)
        .await?;
    Ok(backlog)
}

/// How many rows of a lane [`lane_backlogs`] counts at most.
pub const ROWS_COUNTED_MAX: i64 = 10_000;

/// The size and the age of a lane.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct LaneBacklog {
    /// The lane.
    #[diesel(sql_type = SmallInt)]
    pub lane: i16,
    /// The number of rows; [`ROWS_COUNTED_MAX`] means that many or more.
    #[diesel(sql_type = BigInt)]
    pub rows: i64,
    /// The age of the first row.
    #[diesel(sql_type = Nullable<Double>)]
    pub oldest_age_seconds: Option<f64>,
    /// The topic of the first row.
    #[diesel(sql_type = Nullable<Text>)]
    pub topic: Option<String>,
}

/// Returns the backlog of every lane, in order, so that an operator finds a lane that is stuck.
pub async fn lane_backlogs(connection: &mut Connection) -> Result<Vec<LaneBacklog>, RepositoryError> {
    let lanes: Vec<i16> = (0..LANES).collect();
    let rows = statement(include_str!("lane_backlogs.sql"))
        .bind::<Array<SmallInt>, _>(lanes)
        .bind::<BigInt, _>(ROWS_COUNTED_MAX)
        .get_results(connection)
        .await?;
    Ok(rows)
}
