//! The runs of `ledger aggregate`. At most one is running, which a unique index guarantees as well.

use chrono::{DateTime, NaiveDate, Utc};
use diesel::{
    ExpressionMethods, NullableExpressionMethods, QueryDsl, Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;

use super::super::{
    Connection, RepositoryError,
    functions::{clock_timestamp, earlier_date, later_date},
    leases::{self, Lease},
    schema::aggregate_runs,
    transaction,
};

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, serde::Serialize)]
#[diesel(table_name = aggregate_runs)]
pub struct AggregateRun {
    /// The id; later runs have higher ids.
    pub id: i64,
    /// The start, by the database's clock.
    pub started_at: DateTime<Utc>,
    /// The end; None while it runs.
    pub finished_at: Option<DateTime<Utc>>,
    /// `touched`, `range` or `full`.
    pub mode: String,
    /// `running`, `succeeded` or `failed`.
    pub status: String,
    /// The number of days that were rebuilt or updated, at least in part.
    pub days_rebuilt: i32,
    /// The oldest of these days.
    pub first_day: Option<NaiveDate>,
    /// The newest of these days.
    pub last_day: Option<NaiveDate>,
    /// The number of transactions that were compared with their facts.
    pub transactions: i64,
    /// The error of a run that failed.
    pub error: Option<String>,
    /// The number of rows of `fact_transactions` that were missing.
    pub rows_added: i64,
    /// The number of rows of `fact_transactions` that differed.
    pub rows_changed: i64,
    /// The number of rows of `fact_transactions` without a transaction.
    pub rows_removed: i64,
    /// The number of transactions of level high among them.
    pub high_risk: i64,
}

/// The result of the rebuild or the update of a day. Rows are rows of `fact_transactions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayRebuilt {
    /// The transactions that were compared.
    pub transactions: i64,
    /// The transactions of level high among them.
    pub high_risk: i64,
    /// Rows that were missing.
    pub rows_added: i64,
    /// Rows that differed.
    pub rows_changed: i64,
    /// Rows without a transaction.
    pub rows_removed: i64,
}

const RUNNING: &str = "running";
const FAILED: &str = "failed";
const SUCCEEDED: &str = "succeeded";

/// The error of a run whose process ended before it recorded an end.
const ORPHANED: &str = "the process ended before the run did";

/// Records the start of a run, and the failure of a run that a crash left as running.
pub async fn start(connection: &mut Connection, lease: &Lease, mode: &str) -> Result<i64, RepositoryError> {
    transaction("start_run", connection, async |connection: &mut Connection| {
        leases::hold(connection, &[lease]).await?;
        diesel::update(aggregate_runs::table.filter(aggregate_runs::status.eq(RUNNING)))
            .set((
                aggregate_runs::status.eq(FAILED),
                aggregate_runs::finished_at.eq(clock_timestamp().nullable()),
                aggregate_runs::error.eq(ORPHANED),
            ))
            .execute(connection)
            .await?;
        let run_id = diesel::insert_into(aggregate_runs::table)
            .values((aggregate_runs::mode.eq(mode), aggregate_runs::status.eq(RUNNING)))
            .returning(aggregate_runs::id)
            .get_result(connection)
            .await?;
        Ok(run_id)
    })
    .await
}

/// Adds rows of a day to the run, in the database transaction that writes them.
pub(super) async fn count_rows(
    connection: &mut Connection,
    run_id: i64,
    day: NaiveDate,
    is_new_day: bool,
    rebuilt: DayRebuilt,
) -> Result<(), RepositoryError> {
    diesel::update(aggregate_runs::table.find(run_id))
        .set((
            aggregate_runs::days_rebuilt.eq(aggregate_runs::days_rebuilt + i32::from(is_new_day)),
            aggregate_runs::transactions.eq(aggregate_runs::transactions + rebuilt.transactions),
            aggregate_runs::rows_added.eq(aggregate_runs::rows_added + rebuilt.rows_added),
            aggregate_runs::rows_changed.eq(aggregate_runs::rows_changed + rebuilt.rows_changed),
            aggregate_runs::rows_removed.eq(aggregate_runs::rows_removed + rebuilt.rows_removed),
            aggregate_runs::high_risk.eq(aggregate_runs::high_risk + rebuilt.high_risk),
            aggregate_runs::first_day.eq(earlier_date(aggregate_runs::first_day, day)),
            aggregate_runs::last_day.eq(later_date(aggregate_runs::last_day, day)),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

/// Records the end of a run, unless an end is already recorded, and returns the run.
pub async fn finish(
    connection: &mut Connection,
    run_id: i64,
    error: Option<&str>,
) -> Result<AggregateRun, RepositoryError> {
    let running = aggregate_runs::table.find(run_id).filter(aggregate_runs::status.eq(RUNNING));
    diesel::update(running)
        .set((
            aggregate_runs::status.eq(if error.is_none() { SUCCEEDED } else { FAILED }),
            aggregate_runs::error.eq(error),
            aggregate_runs::finished_at.eq(clock_timestamp().nullable()),
        ))
        .execute(connection)
        .await?;
    let run = aggregate_runs::table.find(run_id).select(AggregateRun::as_select()).first(connection).await?;
    Ok(run)
}
