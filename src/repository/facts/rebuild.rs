//! The rebuild of one day. Facts that are already right are not written again.

use chrono::NaiveDate;
use diesel::{
    ExpressionMethods, QueryDsl, QueryableByName,
    sql_types::{Array, BigInt, Date, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;

use super::{
    super::{
        Bind, Connection, Isolation, RepositoryError,
        leases::{self, Lease},
        schema::fact_transactions,
        statement, transaction_with,
    },
    days::id_range,
    marks,
    runs::{self, DayRebuilt},
};

/// Writes the facts of a day that has none. It is faster than the other statement, because it compares nothing.
const INSERT_ALL: &str = concat!(include_str!("ledger_rows.sql"), include_str!("insert.sql"));
const INSERT_WHERE_DIFFERENT: &str =
    concat!(include_str!("ledger_rows.sql"), include_str!("insert.sql"), include_str!("where_different.sql"));

#[derive(QueryableByName)]
pub(super) struct DayTotals {
    #[diesel(sql_type = BigInt)]
    pub(super) transactions: i64,
    #[diesel(sql_type = BigInt)]
    pub(super) high_risk: i64,
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
            marks::delete_all(connection, day).await?;
            let rebuilt = write_day(connection, day).await?;
            runs::count_rows(connection, run_id, day, true, rebuilt).await?;
            leases::hold(connection, &[lease]).await?;
            Ok(rebuilt)
        },
    )
    .await
}

/// Writes the facts of a day that are missing or differ, and removes those without a transaction.
pub(super) async fn write_day(
    connection: &mut Connection,
    day: NaiveDate,
) -> Result<DayRebuilt, RepositoryError> {
    let (begin, end) = id_range(day);
    let removed = statement(include_str!("remove_transactions.sql"))
        .bind::<Date, _>(day)
        .bind::<SqlUuid, _>(begin)
        .bind::<SqlUuid, _>(end)
        .execute(connection)
        .await?;
    let rows_before: i64 = fact_transactions::table
        .filter(fact_transactions::business_date.eq(day))
        .count()
        .get_result(connection)
        .await?;
    let sql = if rows_before == 0 { INSERT_ALL } else { INSERT_WHERE_DIFFERENT };
    let written = statement(sql)
        .bind::<Date, _>(day)
        .bind::<Array<SqlUuid>, _>(vec![begin])
        .bind::<Array<SqlUuid>, _>(vec![end])
        .execute(connection)
        .await?;
    statement(include_str!("write_account_days.sql")).bind::<Date, _>(day).execute(connection).await?;
    let DayTotals { transactions, high_risk } =
        statement(include_str!("day_totals.sql")).bind::<Date, _>(day).get_result(connection).await?;
    let rows_added = transactions - rows_before;
    let rows_changed = signed(written) - rows_added;
    let rows_removed = signed(removed);
    Ok(DayRebuilt { transactions, high_risk, rows_added, rows_changed, rows_removed })
}

fn signed(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
