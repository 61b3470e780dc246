//! The rebuild of one day.

use chrono::NaiveDate;
use diesel::{
    ExpressionMethods, QueryDsl,
    sql_types::{Date, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;

use super::{
    super::{
        Bind, Connection, Isolation, RepositoryError,
        leases::{self, Lease},
        schema::{fact_account_day, fact_marks, fact_transactions},
        statement, transaction_with,
    },
    days::id_range,
    runs,
};

/// The number of rows that the rebuild of a day wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayRebuilt {
    /// Rows of `fact_transactions`.
    pub transactions: i64,
    /// Rows of `fact_account_day`.
    pub account_days: i64,
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
            delete_day(connection, day).await?;
            let transactions = insert_transactions(connection, day).await?;
            let account_days = insert_account_days(connection, day).await?;
            runs::count_day(connection, run_id, day, transactions).await?;
            leases::hold(connection, &[lease]).await?;
            Ok(DayRebuilt { transactions, account_days })
        },
    )
    .await
}

/// Deletes the marks that the snapshot sees, and the old facts of the day.
async fn delete_day(connection: &mut Connection, day: NaiveDate) -> Result<(), RepositoryError> {
    diesel::delete(fact_marks::table.filter(fact_marks::day.eq(day))).execute(connection).await?;
    diesel::delete(fact_transactions::table.filter(fact_transactions::business_date.eq(day)))
        .execute(connection)
        .await?;
    diesel::delete(fact_account_day::table.filter(fact_account_day::business_date.eq(day)))
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert_transactions(connection: &mut Connection, day: NaiveDate) -> Result<i64, RepositoryError> {
    let (begin, end) = id_range(day);
    let inserted = statement(include_str!("insert_transactions.sql"))
        .bind::<Date, _>(day)
        .bind::<SqlUuid, _>(begin)
        .bind::<SqlUuid, _>(end)
        .execute(connection)
        .await?;
    Ok(rows(inserted))
}

async fn insert_account_days(connection: &mut Connection, day: NaiveDate) -> Result<i64, RepositoryError> {
    let inserted =
        statement(include_str!("insert_account_days.sql")).bind::<Date, _>(day).execute(connection).await?;
    Ok(rows(inserted))
}

fn rows(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
