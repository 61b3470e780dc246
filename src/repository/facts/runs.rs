//! The record of each run of `aggregate`. One is running at a time; the database holds that too.

use chrono::{DateTime, NaiveDate, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Date, Integer, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;

use super::super::{
    Bind, Connection, RepositoryError,
    leases::{self, Lease},
    statement, transaction,
};

/// A run as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName, serde::Serialize)]
pub struct AggregateRun {
    /// Rises.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// By the database's clock.
    #[diesel(sql_type = Timestamptz)]
    pub started_at: DateTime<Utc>,
    /// None while it runs.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub finished_at: Option<DateTime<Utc>>,
    /// `touched`, `range` or `full`.
    #[diesel(sql_type = Text)]
    pub mode: String,
    /// `running`, `succeeded` or `failed`.
    #[diesel(sql_type = Text)]
    pub status: String,
    /// How many days committed.
    #[diesel(sql_type = Integer)]
    pub days_rebuilt: i32,
    /// Oldest day rebuilt.
    #[diesel(sql_type = Nullable<Date>)]
    pub first_day: Option<NaiveDate>,
    /// Newest day rebuilt.
    #[diesel(sql_type = Nullable<Date>)]
    pub last_day: Option<NaiveDate>,
    /// Rows of `fact_transactions` written.
    #[diesel(sql_type = BigInt)]
    pub transactions: i64,
    /// Why it failed.
    #[diesel(sql_type = Nullable<Text>)]
    pub error: Option<String>,
}

#[derive(QueryableByName)]
struct RunId {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

/// What a run that never said how it ended is given as its error.
const ORPHANED: &str = "the process ended before the run did";

/// Records the start of a run and marks one that a crash left behind as failed.
pub async fn start(connection: &mut Connection, lease: &Lease, mode: &str) -> Result<i64, RepositoryError> {
    transaction("start_run", connection, async |connection: &mut Connection| {
        leases::hold(connection, &[lease]).await?;
        statement(
            "UPDATE aggregate_runs SET status = 'failed', finished_at = clock_timestamp(), error = ?
             WHERE status = 'running'",
        )
        .bind::<Text, _>(ORPHANED)
        .execute(connection)
        .await?;
        let run: RunId =
            statement("INSERT INTO aggregate_runs (mode, status) VALUES (?, 'running') RETURNING id")
                .bind::<Text, _>(mode)
                .get_result(connection)
                .await?;
        Ok(run.id)
    })
    .await
}

/// Adds a day to the run, in the transaction that rebuilds the day.
pub(super) async fn count_day(
    connection: &mut Connection,
    run_id: i64,
    day: NaiveDate,
    transactions: i64,
) -> Result<(), RepositoryError> {
    statement(
        "UPDATE aggregate_runs SET days_rebuilt = days_rebuilt + 1, transactions = transactions + ?,
           first_day = least(first_day, ?), last_day = greatest(last_day, ?)
         WHERE id = ?",
    )
    .bind::<BigInt, _>(transactions)
    .bind::<Date, _>(day)
    .bind::<Date, _>(day)
    .bind::<BigInt, _>(run_id)
    .execute(connection)
    .await?;
    Ok(())
}

/// Records the end of a run, unless somebody has recorded it already, and answers how it stands.
pub async fn finish(
    connection: &mut Connection,
    run_id: i64,
    error: Option<&str>,
) -> Result<AggregateRun, RepositoryError> {
    statement(
        "UPDATE aggregate_runs SET status = CASE WHEN ? IS NULL THEN 'succeeded' ELSE 'failed' END,
           error = ?, finished_at = clock_timestamp()
         WHERE id = ? AND status = 'running'",
    )
    .bind::<Nullable<Text>, _>(error)
    .bind::<Nullable<Text>, _>(error)
    .bind::<BigInt, _>(run_id)
    .execute(connection)
    .await?;
    let run = statement(
        "SELECT id, started_at, finished_at, mode, status, days_rebuilt, first_day, last_day, transactions, error
         FROM aggregate_runs WHERE id = ?",
    )
    .bind::<BigInt, _>(run_id)
    .get_result(connection)
    .await?;
    Ok(run)
}
