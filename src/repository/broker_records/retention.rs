//! The removal of old records.

use std::time::Duration;

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Double, Integer, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::super::{Bind, Connection, RepositoryError, statement};

#[derive(QueryableByName)]
struct Removed {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Removes records from the front of a partition and returns their number, at most `count_max`.
///
/// A record is removed while it is older than `age_max` or the partition holds more than `bytes_max`, but not before
/// every consumer group with a position in the partition has handled it. Concurrent calls are safe: the second one
/// finds nothing to remove.
pub async fn remove_front(
    connection: &mut Connection,
    topic: &str,
    partition: i32,
    age_max: Option<Duration>,
    bytes_max: Option<u64>,
    count_max: i64,
) -> Result<i64, RepositoryError> {
    let removed: Removed = statement(include_str!("remove_front.sql"))
        .bind::<Nullable<BigInt>, _>(bytes_max.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
        .bind::<Text, _>(topic)
        .bind::<Integer, _>(partition)
        .bind::<BigInt, _>(count_max)
        .bind::<Nullable<Double>, _>(age_max.map(|age| age.as_secs_f64()))
        .get_result(connection)
        .await?;
    Ok(removed.count)
}
