//! The update of the facts that marks name. Its cost follows the rows in the named ranges.

use chrono::NaiveDate;
use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName,
    sql_types::{Array, BigInt, Date, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    super::{
        Bind, Connection, Isolation, RepositoryError,
        leases::{self, Lease},
        schema::fact_transactions,
        statement, transaction_with,
    },
    marks::{self, MarkChunk, MarkKey},
    rebuild::{DayTotals, write_day},
    runs::{self, DayRebuilt},
};
use crate::domain::IdRange;

/// Writes the facts of ranges that are missing or have no assessment yet.
const UPDATE: &str = concat!(include_str!("ledger_rows.sql"), include_str!("update.sql"));

#[derive(QueryableByName)]
struct RowsWritten {
    #[diesel(sql_type = BigInt)]
    rows_added: i64,
    #[diesel(sql_type = BigInt)]
    rows_changed: i64,
    #[diesel(sql_type = BigInt)]
    other_assessments: i64,
    #[diesel(sql_type = BigInt)]
    unnumbered_days: i64,
}

/// The result of writing ranges.
enum Ranges {
    /// Their facts are up to date.
    Written(DayRebuilt),
    /// These rows were written, and the whole day must be compared.
    NeedRebuild { rows_added: i64, rows_changed: i64 },
}

/// The result of an update of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayUpdated {
    /// What was compared and written.
    pub rows: DayRebuilt,
    /// The last mark that was handled, if more may follow.
    pub next: Option<MarkKey>,
}

/// Updates the facts of a day that its next marks name, at most `marks_max` of them, for the run `run_id` in a database
/// transaction of its own, under `lease`. `after` is the last mark that the run has handled; None begins the day.
///
/// Rebuilds the whole day if it has no facts yet, if a mark names no range, if an assessment differs from the one in its
/// fact, or if an older binary wrote the facts of an account's day.
pub async fn update_day(
    connection: &mut Connection,
    lease: &Lease,
    run_id: i64,
    day: NaiveDate,
    after: Option<MarkKey>,
    marks_max: u16,
) -> Result<DayUpdated, RepositoryError> {
    transaction_with(
        Isolation::RepeatableRead,
        "update_day",
        connection,
        async |connection: &mut Connection| {
            // Held twice, as in a rebuild of the day.
            leases::hold(connection, &[lease]).await?;
            let chunk = MarkChunk::read(connection, day, after, marks_max).await?;
            let updated = match &chunk.ranges {
                Some(ranges) if has_facts(connection, day).await? => {
                    Some(write_ranges(connection, day, ranges).await?)
                }
                _ => None,
            };
            let (rows, next) = match updated {
                Some(Ranges::Written(rows)) => {
                    chunk.delete(connection, day).await?;
                    (rows, chunk.last_key().filter(|_| chunk.is_full))
                }
                other => {
                    marks::delete_all(connection, day).await?;
                    let mut rows = write_day(connection, day).await?;
                    if let Some(Ranges::NeedRebuild { rows_added, rows_changed }) = other {
                        rows.rows_added += rows_added;
                        rows.rows_changed += rows_changed;
                    }
                    (rows, None)
                }
            };
            runs::count_rows(connection, run_id, day, after.is_none(), rows).await?;
            leases::hold(connection, &[lease]).await?;
            Ok(DayUpdated { rows, next })
        },
    )
    .await
}

async fn has_facts(connection: &mut Connection, day: NaiveDate) -> Result<bool, RepositoryError> {
    let first: Option<Uuid> = fact_transactions::table
        .filter(fact_transactions::business_date.eq(day))
        .order((fact_transactions::business_date, fact_transactions::transaction_id))
        .select(fact_transactions::transaction_id)
        .first(connection)
        .await
        .optional()?;
    Ok(first.is_some())
}

/// Writes the missing facts and assessments of the ranges.
async fn write_ranges(
    connection: &mut Connection,
    day: NaiveDate,
    ranges: &[IdRange],
) -> Result<Ranges, RepositoryError> {
    let (begins, ends): (Vec<Uuid>, Vec<Uuid>) = ranges.iter().map(|range| (range.begin, range.end)).unzip();
    let written: RowsWritten = statement(UPDATE)
        .bind::<Date, _>(day)
        .bind::<Array<SqlUuid>, _>(&begins)
        .bind::<Array<SqlUuid>, _>(&ends)
        .get_result(&mut *connection)
        .await?;
    let RowsWritten { rows_added, rows_changed, .. } = written;
    if written.other_assessments > 0 || written.unnumbered_days > 0 {
        return Ok(Ranges::NeedRebuild { rows_added, rows_changed });
    }
    let DayTotals { transactions, high_risk } = statement(include_str!("range_totals.sql"))
        .bind::<Date, _>(day)
        .bind::<Array<SqlUuid>, _>(&begins)
        .bind::<Array<SqlUuid>, _>(&ends)
        .get_result(connection)
        .await?;
    Ok(Ranges::Written(DayRebuilt { transactions, high_risk, rows_added, rows_changed, rows_removed: 0 }))
}
