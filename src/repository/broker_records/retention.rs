//! Removing old records.

use std::time::Duration;

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Double, Integer, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::super::{Bind, Connection, RepositoryError, statement};

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Removes records from the front of a partition while they are older than `age_max` or the partition holds more than
/// `bytes_max`, at most `count_max` of them, and none that a group with a position here has still to handle. Answers how
/// many. Two that do it at once do no harm: one finds nothing left.
pub async fn remove_front(
    connection: &mut Connection,
    topic: &str,
    partition: i32,
    age_max: Option<Duration>,
    bytes_max: Option<u64>,
    count_max: i64,
) -> Result<i64, RepositoryError> {
    let removed: Count = statement(
        "WITH held AS (
           SELECT p.bytes - ? AS excess, coalesce((
             SELECT min(c.next_offset) FROM consumer_positions c
             WHERE c.topic = p.topic AND c.partition = p.partition), p.next_offset) AS needed
           FROM broker_partitions p WHERE p.topic = ? AND p.partition = ?),
         front AS MATERIALIZED (
           SELECT record_offset, created_at, sum(size) OVER (ORDER BY record_offset) AS bytes_upto FROM (
             SELECT record_offset, created_at, coalesce(octet_length(key), 0) + coalesce(octet_length(value), 0) AS size
             FROM broker_records WHERE topic = ? AND partition = ? AND record_offset < (SELECT needed FROM held)
             ORDER BY record_offset LIMIT ?) AS first),
         cut AS (
           SELECT coalesce(
             min(record_offset) FILTER (
               WHERE NOT coalesce(created_at < clock_timestamp() - make_interval(secs => ?), false)
                 AND NOT coalesce(bytes_upto <= (SELECT excess FROM held), false)),
             max(record_offset) + 1) AS first_kept FROM front),
         removed AS (
           DELETE FROM broker_records r
           WHERE r.topic = ? AND r.partition = ? AND r.record_offset < (SELECT first_kept FROM cut)
           RETURNING coalesce(octet_length(r.key), 0) + coalesce(octet_length(r.value), 0) AS size),
         counted AS (SELECT count(*) AS count, coalesce(sum(size), 0)::bigint AS bytes FROM removed),
         shrunk AS (
           UPDATE broker_partitions p SET bytes = p.bytes - c.bytes FROM counted c
           WHERE p.topic = ? AND p.partition = ? AND c.count > 0)
         SELECT count FROM counted",
    )
    .bind::<Nullable<BigInt>, _>(bytes_max.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
    .bind::<Text, _>(topic)
    .bind::<Integer, _>(partition)
    .bind::<Text, _>(topic)
    .bind::<Integer, _>(partition)
    .bind::<BigInt, _>(count_max)
    .bind::<Nullable<Double>, _>(age_max.map(|age| age.as_secs_f64()))
    .bind::<Text, _>(topic)
    .bind::<Integer, _>(partition)
    .bind::<Text, _>(topic)
    .bind::<Integer, _>(partition)
    .get_result(connection)
    .await?;
    Ok(removed.count)
}
