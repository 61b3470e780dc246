//! The analytics facts: which days need work, and the rebuild of one day.
//!
//! Guarantees: a day's facts, the deletion of the marks that asked for them and the run's own progress commit together,
//! all from one snapshot of the ledger. A row that commits later leaves a mark of its own, which the snapshot did not
//! see and therefore does not delete. Rebuilding twice gives the same rows. Whoever lost the lease commits nothing.
//!
//! A day is a UTC date. Its transactions are a range of ids, since an id is made from `created_at`.

use chrono::{DateTime, Days, NaiveDate, Utc};
use diesel::{
    QueryableByName,
    sql_types::{Array, Date, Nullable, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    Bind, Connection, Isolation, RepositoryError,
    leases::{self, Lease},
    runs, statement, transaction_with,
};
use crate::domain::transaction_id_floor;

/// What the rebuild of a day wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayRebuilt {
    /// Rows of `fact_transactions`.
    pub transactions: i64,
    /// Rows of `fact_account_day`.
    pub account_days: i64,
}

#[derive(QueryableByName)]
struct DayRow {
    #[diesel(sql_type = Date)]
    day: NaiveDate,
}

#[derive(QueryableByName)]
struct Bounds {
    #[diesel(sql_type = Nullable<Date>)]
    first: Option<NaiveDate>,
    #[diesel(sql_type = Nullable<Date>)]
    last: Option<NaiveDate>,
}

/// First id of the day and first id of the day after it.
pub fn id_range(day: NaiveDate) -> (Uuid, Uuid) {
    let midnight = |day: NaiveDate| DateTime::<Utc>::from_naive_utc_and_offset(day.into(), Utc);
    let next = day.checked_add_days(Days::new(1)).unwrap_or(day);
    (transaction_id_floor(midnight(day)), transaction_id_floor(midnight(next)))
}

/// Days that were touched since they were last rebuilt, oldest first.
pub async fn marked_days(connection: &mut Connection) -> Result<Vec<NaiveDate>, RepositoryError> {
    let days: Vec<DayRow> =
        statement("SELECT DISTINCT day FROM fact_marks ORDER BY day").load(connection).await?;
    Ok(days.into_iter().map(|row| row.day).collect())
}

/// Days from `from` to `to`, both included, that have transactions, facts or marks, oldest first. None: no bound.
pub async fn days_between(
    connection: &mut Connection,
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
) -> Result<Vec<NaiveDate>, RepositoryError> {
    let bounds = bounds(connection).await?;
    let (Some(first), Some(last)) = (bounds.first, bounds.last) else { return Ok(Vec::new()) };
    let first = from.map_or(first, |from| from.max(first));
    let last = to.map_or(last, |to| to.min(last));
    let candidates: Vec<NaiveDate> = first.iter_days().take_while(|day| *day <= last).collect();
    let (begins, ends): (Vec<Uuid>, Vec<Uuid>) = candidates.iter().map(|day| id_range(*day)).unzip();
    let days: Vec<DayRow> = statement(
        "SELECT c.day FROM unnest(?, ?, ?) AS c (day, begin_id, end_id)
         WHERE EXISTS (SELECT FROM transactions t WHERE t.id >= c.begin_id AND t.id < c.end_id)
            OR EXISTS (SELECT FROM fact_transactions f WHERE f.business_date = c.day)
            OR EXISTS (SELECT FROM fact_account_day f WHERE f.business_date = c.day)
            OR EXISTS (SELECT FROM fact_marks m WHERE m.day = c.day)
         ORDER BY c.day",
    )
    .bind::<Array<Date>, _>(candidates)
    .bind::<Array<SqlUuid>, _>(begins)
    .bind::<Array<SqlUuid>, _>(ends)
    .load(connection)
    .await?;
    Ok(days.into_iter().map(|row| row.day).collect())
}

/// The oldest and the newest day that anything is known of. Each part is the end of an index.
async fn bounds(connection: &mut Connection) -> Result<Bounds, RepositoryError> {
    let bounds = statement(
        "SELECT min(day) AS first, max(day) AS last FROM (
           (SELECT (created_at AT TIME ZONE 'UTC')::date AS day FROM transactions ORDER BY id LIMIT 1)
           UNION ALL
           (SELECT (created_at AT TIME ZONE 'UTC')::date FROM transactions ORDER BY id DESC LIMIT 1)
           UNION ALL (SELECT min(business_date) FROM fact_transactions)
           UNION ALL (SELECT max(business_date) FROM fact_transactions)
           UNION ALL (SELECT min(business_date) FROM fact_account_day)
           UNION ALL (SELECT max(business_date) FROM fact_account_day)
           UNION ALL (SELECT min(day) FROM fact_marks)
           UNION ALL (SELECT max(day) FROM fact_marks)) AS ends",
    )
    .get_result(connection)
    .await?;
    Ok(bounds)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_a_range_of_ids_that_meets_the_next() {
        let day = NaiveDate::from_ymd_opt(1993, 12, 31).expect("a date");
        let next = NaiveDate::from_ymd_opt(1994, 1, 1).expect("a date");
        assert!(id_range(day).0 < id_range(day).1);
        assert_eq!(id_range(day).1, id_range(next).0);
    }
}
