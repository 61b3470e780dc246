//! The outbox lane by lane, for people who look for one that does not move. Costs a few thousand index entries.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Double, Nullable, SmallInt, Text},
};
use diesel_async::RunQueryDsl;

use super::{Bind, Connection, RepositoryError, statement};
use crate::event::LANES;

/// Most rows of a lane that are counted.
pub const ROWS_COUNTED_MAX: i64 = 10_000;

/// A lane and what waits in it.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct LaneBacklog {
    /// The lane.
    #[diesel(sql_type = SmallInt)]
    pub lane: i16,
    /// Rows that wait; [`ROWS_COUNTED_MAX`] stands for that many or more.
    #[diesel(sql_type = BigInt)]
    pub rows: i64,
    /// Age of the first of them.
    #[diesel(sql_type = Nullable<Double>)]
    pub oldest_age_seconds: Option<f64>,
    /// Where the first of them is to go.
    #[diesel(sql_type = Nullable<Text>)]
    pub topic: Option<String>,
}

/// Every lane, in order.
pub async fn list(connection: &mut Connection) -> Result<Vec<LaneBacklog>, RepositoryError> {
    let lanes: Vec<i16> = (0..LANES).collect();
    let rows = statement(
        "SELECT l.lane, counted.rows, first.oldest_age_seconds, first.topic
         FROM unnest(?) AS l (lane)
         LEFT JOIN LATERAL (
           SELECT topic, extract(epoch FROM clock_timestamp() - created_at)::float8 AS oldest_age_seconds
           FROM outbox WHERE outbox.lane = l.lane ORDER BY id LIMIT 1) AS first ON true
         CROSS JOIN LATERAL (
           SELECT count(*) AS rows FROM (
             SELECT 1 FROM outbox WHERE outbox.lane = l.lane ORDER BY id LIMIT ?) AS bounded) AS counted
         ORDER BY l.lane",
    )
    .bind::<Array<SmallInt>, _>(lanes)
    .bind::<BigInt, _>(ROWS_COUNTED_MAX)
    .get_results(connection)
    .await?;
    Ok(rows)
}
