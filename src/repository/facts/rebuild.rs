//! The rebuild of one day.

use chrono::NaiveDate;
use diesel::sql_types::{Date, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;

use super::{
    super::{
        Bind, Connection, Isolation, RepositoryError,
        leases::{self, Lease},
        statement, transaction_with,
    },
    days::id_range,
    runs,
};

/// What the rebuild of a day wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayRebuilt {
    /// Rows of `fact_transactions`.
    pub transactions: i64,
    /// Rows of `fact_account_day`.
    pub account_days: i64,
}

/// Rebuilds one day for the run `run_id` in a transaction of its own, under `lease`.
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
            // First, so that nothing renews the lease between the snapshot and this; last, because a long day may
            // have used up all of the lease's time.
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

/// Deletes the marks that the snapshot sees, and the day's old facts.
async fn delete_day(connection: &mut Connection, day: NaiveDate) -> Result<(), RepositoryError> {
    statement("DELETE FROM fact_marks WHERE day = ?").bind::<Date, _>(day).execute(connection).await?;
    statement("DELETE FROM fact_transactions WHERE business_date = ?")
        .bind::<Date, _>(day)
        .execute(connection)
        .await?;
    statement("DELETE FROM fact_account_day WHERE business_date = ?")
        .bind::<Date, _>(day)
        .execute(connection)
        .await?;
    Ok(())
}

/// Minor units become decimals by multiplication, which is exact at any size; a numeric division chooses its own scale.
async fn insert_transactions(connection: &mut Connection, day: NaiveDate) -> Result<i64, RepositoryError> {
    let (begin, end) = id_range(day);
    let inserted = statement(
        "INSERT INTO fact_transactions (business_date, transaction_id, account_id, account_seq, created_at, hour,
           currency, direction, amount, signed_amount, balance_after, counterparty, description, metadata, reverses,
           risk_score, risk_level, ruleset, assessed_at)
         SELECT ?, t.id, t.account_id, t.account_seq, t.created_at,
           extract(hour FROM t.created_at AT TIME ZONE 'UTC')::smallint,
           a.currency, CASE WHEN t.amount > 0 THEN 'credit' ELSE 'debit' END,
           abs(t.amount) * c.unit, t.amount * c.unit, t.balance_after * c.unit,
           t.counterparty, t.description, t.metadata, t.reverses,
           r.risk_score, r.risk_level, r.ruleset, r.assessed_at
         FROM transactions t
         JOIN accounts a ON a.account_id = t.account_id
         JOIN (SELECT code, ('1e-' || decimals)::numeric AS unit FROM currencies) AS c ON c.code = a.currency
         LEFT JOIN risk_assessments r
           ON r.account_id = t.account_id AND r.account_seq = t.account_seq
           AND r.transaction_id >= ? AND r.transaction_id < ?
         WHERE t.id >= ? AND t.id < ?",
    )
    .bind::<Date, _>(day)
    .bind::<SqlUuid, _>(begin)
    .bind::<SqlUuid, _>(end)
    .bind::<SqlUuid, _>(begin)
    .bind::<SqlUuid, _>(end)
    .execute(connection)
    .await?;
    Ok(rows(inserted))
}

/// The first and the last balance are found as the smallest and the largest pair of sequence number and balance: one
/// pass and constant memory per account, however busy its day was.
async fn insert_account_days(connection: &mut Connection, day: NaiveDate) -> Result<i64, RepositoryError> {
    let inserted = statement(
        "INSERT INTO fact_account_day (business_date, account_id, currency, transaction_count, credit_count,
           debit_count, credit_sum, debit_sum, opening_balance, closing_balance, assessed_count, max_risk_score,
           high_risk_count)
         SELECT business_date, account_id, min(currency), count(*),
           count(*) FILTER (WHERE direction = 'credit'), count(*) FILTER (WHERE direction = 'debit'),
           coalesce(sum(amount) FILTER (WHERE direction = 'credit'), 0),
           coalesce(sum(amount) FILTER (WHERE direction = 'debit'), 0),
           (min(ARRAY[account_seq::numeric, balance_after - signed_amount]))[2],
           (max(ARRAY[account_seq::numeric, balance_after]))[2],
           count(risk_score), max(risk_score), count(*) FILTER (WHERE risk_level = 'high')
         FROM fact_transactions WHERE business_date = ?
         GROUP BY business_date, account_id",
    )
    .bind::<Date, _>(day)
    .execute(connection)
    .await?;
    Ok(rows(inserted))
}

fn rows(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
