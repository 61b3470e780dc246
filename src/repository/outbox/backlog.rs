//! Sizes and ages of the outbox.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Double, Nullable, SmallInt, Text},
};
use diesel_async::RunQueryDsl;

use super::super::{Bind, Connection, RepositoryError, statement};
use crate::event::LANES;

/// How far the outbox is behind.
#[derive(Debug, Clone, Copy, PartialEq, QueryableByName)]
pub struct Backlog {
    /// Rows that wait: exact while they are few, PostgreSQL's own count when they are many.
    #[diesel(sql_type = BigInt)]
    pub rows: i64,
    /// Age of the oldest row at the head of a lane, 0 if there is none.
    #[diesel(sql_type = Double)]
    pub oldest_age_seconds: f64,
}

/// Most rows of a lane that are counted one by one.
const COUNTED_PER_LANE_MAX: i64 = 250;

/// How far the outbox is behind, at the cost of a few thousand index entries at most, if the floors of all lanes are
/// known; each is 0 if not.
pub async fn backlog(connection: &mut Connection, floors: &[i64]) -> Result<Backlog, RepositoryError> {
    let lanes: Vec<i16> = (0..LANES).collect();
    let backlog = statement(
        "WITH lane AS (
           SELECT first.created_at, counted.rows
           FROM unnest(?, ?) AS l (lane, floor)
           CROSS JOIN LATERAL (
             SELECT created_at FROM outbox
             WHERE outbox.lane = l.lane AND outbox.id >= l.floor ORDER BY id LIMIT 1) AS first
           CROSS JOIN LATERAL (
             SELECT count(*) AS rows FROM (
               SELECT 1 FROM outbox
               WHERE outbox.lane = l.lane AND outbox.id >= l.floor ORDER BY id LIMIT ?) AS bounded) AS counted)
         SELECT CASE WHEN coalesce(max(rows), 0) < ? THEN coalesce(sum(rows), 0)::bigint
                ELSE greatest(sum(rows)::bigint, (
                  SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = 'outbox'::regclass)) END AS rows,
                coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS oldest_age_seconds
         FROM lane",
    )
    .bind::<Array<SmallInt>, _>(lanes)
    .bind::<Array<BigInt>, _>(floors)
    .bind::<BigInt, _>(COUNTED_PER_LANE_MAX)
    .bind::<BigInt, _>(COUNTED_PER_LANE_MAX)
    .get_result(connection)
    .await?;
    Ok(backlog)
}

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
pub async fn lane_backlogs(connection: &mut Connection) -> Result<Vec<LaneBacklog>, RepositoryError> {
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
