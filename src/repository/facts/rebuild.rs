//! The rebuild of one day. Facts that are already right are not written again.

use chrono::NaiveDate;
use diesel::{
    ExpressionMethods, QueryDsl, QueryableByName,
    sql_types::{BigInt, Date, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;

use super::{
    super::{
        Bind, Connection, Isolation, RepositoryError,
        leases::{self, Lease},
        schema::{fact_marks, fact_transactions},
        statement, transaction_with,
    },
    days::id_range,
    runs::{self, DayRebuilt},
};

/// Writes the facts of a day that has none. It is faster than the other statement, because it compares nothing.
const INSERT_ALL: &str = include_str!("insert_transactions.sql");
const INSERT_WHERE_DIFFERENT: &str =
    concat!(include_str!("insert_transactions.sql"), include_str!("where_different.sql"));

#[derive(QueryableByName)]
struct DayTotals {
    #[diesel(sql_type = BigInt)]
    transactions: i64,
    #[diesel(sql_type = BigInt)]
    high_risk: i64,
}

/// Rebuilds one day for the run `run_id` in its own database transaction, under `lease`.
pub async fn rebuild_day(
    connection: &mut Connection,
    lease: &Lease,
    run_id: i64,
    day: NaiveDate,
) -> Result<DayRebuilt, RepositoryError> {
    transaction_with(
        Isolation::RepeatableRead,
        "rebuild_day",
        connection,
        async |connection: &mut Connection| {
            // Held twice. The first call locks the lease before another statement could renew it after the snapshot.
            // The last call extends it, because a long day may have used up the time of the lease.
            leases::hold(connection, &[lease]).await?;
            // Only the marks that the snapshot sees.
            diesel::delete(fact_marks::table.filter(fact_marks::day.eq(day))).execute(connection).await?;
            let rebuilt = write_day(connection, day).await?;
            runs::count_day(connection, run_id, day, rebuilt).await?;
            leases::hold(connection, &[lease]).await?;
            Ok(rebuilt)
        },
    )
    .await
}

async fn write_day(connection: &mut Connection, day: NaiveDate) -> Result<DayRebuilt, RepositoryError> {
    let rows_removed = on_day(connection, include_str!("remove_transactions.sql"), day).await?;
    let rows_before: i64 = fact_transactions::table
        .filter(fact_transactions::business_date.eq(day))
        .count()
        .get_result(connection)
        .await?;
    let sql = if rows_before == 0 { INSERT_ALL } else { INSERT_WHERE_DIFFERENT };
    let rows_written = on_day(connection, sql, day).await?;
    statement(include_str!("write_account_days.sql")).bind::<Date, _>(day).execute(connection).await?;
    let DayTotals { transactions, high_risk } =
        statement(include_str!("day_totals.sql")).bind::<Date, _>(day).get_result(connection).await?;
    let rows_added = transactions - rows_before;
    let rows_changed = rows_written - rows_added;
    Ok(DayRebuilt { transactions, high_risk, rows_added, rows_changed, rows_removed })
}

/// Runs a statement about a day and its range of ids. Returns the number of rows that it wrote.
async fn on_day(
    connection: &mut Connection,
    sql: &'static str,
    day: NaiveDate,
) -> Result<i64, RepositoryError> {
    let (begin, end) = id_range(day);
    let rows = statement(sql)
        .bind::<Date, _>(day)
        .bind::<SqlUuid, _>(begin)
        .bind::<SqlUuid, _>(end)
        .execute(connection)
        .await?;
    Ok(i64::try_from(rows).unwrap_or(i64::MAX))
}
