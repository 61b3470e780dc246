//! The facts of a day against the ledger, in minor units: the other way round than they were made.

use chrono::NaiveDate;
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Bool, Date, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;

use super::{
    super::facts::id_range, Bind, Connection, Found, Isolation, RepositoryError, find, statement,
    transaction_with,
};

/// What a day's facts are like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DayFacts {
    /// It was touched since it was last rebuilt: there is nothing to compare yet.
    Marked,
    /// It was compared.
    Compared {
        /// Facts of transactions.
        transactions: i64,
        /// Facts of accounts.
        account_days: i64,
        /// Transactions whose fact differs, is missing or is one too many.
        transactions_differ: Found,
        /// The same of accounts.
        account_days_differ: Found,
    },
}

#[derive(QueryableByName)]
struct DayState {
    #[diesel(sql_type = Bool)]
    marked: bool,
    #[diesel(sql_type = BigInt)]
    transactions: i64,
    #[diesel(sql_type = BigInt)]
    account_days: i64,
}

/// Compares one day in one snapshot.
pub async fn compare_day(connection: &mut Connection, day: NaiveDate) -> Result<DayFacts, RepositoryError> {
    transaction_with(
        Isolation::RepeatableRead,
        "verify_day",
        connection,
        async |connection: &mut Connection| {
            let state = state(connection, day).await?;
            if state.marked {
                return Ok(DayFacts::Marked);
            }
            Ok(DayFacts::Compared {
                transactions: state.transactions,
                account_days: state.account_days,
                transactions_differ: compare_transactions(connection, day).await?,
                account_days_differ: compare_account_days(connection, day).await?,
            })
        },
    )
    .await
}

async fn state(connection: &mut Connection, day: NaiveDate) -> Result<DayState, RepositoryError> {
    let state = statement(
        "SELECT EXISTS (SELECT FROM fact_marks WHERE day = ?) AS marked,
           (SELECT count(*) FROM fact_transactions WHERE business_date = ?) AS transactions,
           (SELECT count(*) FROM fact_account_day WHERE business_date = ?) AS account_days",
    )
    .bind::<Date, _>(day)
    .bind::<Date, _>(day)
    .bind::<Date, _>(day)
    .get_result(connection)
    .await?;
    Ok(state)
}

async fn compare_transactions(connection: &mut Connection, day: NaiveDate) -> Result<Found, RepositoryError> {
    let (begin, end) = id_range(day);
    find(
        connection,
        statement(
            "WITH ledger AS (
               SELECT t.id, t.account_id, t.account_seq, t.created_at, a.currency, t.amount, t.balance_after,
                 t.counterparty, t.description, t.metadata::text AS metadata, t.reverses,
                 r.risk_score, r.risk_level, r.ruleset, r.assessed_at
               FROM transactions t
               LEFT JOIN accounts a ON a.account_id = t.account_id
               LEFT JOIN risk_assessments r ON r.account_id = t.account_id AND r.account_seq = t.account_seq
                 AND r.transaction_id >= ? AND r.transaction_id < ?
               WHERE t.id >= ? AND t.id < ?
             ), facts AS (
               SELECT f.*, ('1e' || c.decimals)::numeric AS scale
               FROM fact_transactions f LEFT JOIN currencies c ON c.code = f.currency
               WHERE f.business_date = ?
             )
             SELECT count(*) OVER () AS total,
               'transaction ' || coalesce(l.id, f.transaction_id) || ' of account '
                 || coalesce(l.account_id, f.account_id)
                 || CASE WHEN l.id IS NULL THEN ' has a fact but is not in the ledger'
                         WHEN f.transaction_id IS NULL THEN ' has no fact'
                         ELSE ' differs from its fact: amount ' || l.amount || ' / ' || f.signed_amount
                           || ', balance ' || l.balance_after || ' / ' || f.balance_after || ', risk '
                           || coalesce(l.risk_level, 'none') || ' / ' || coalesce(f.risk_level, 'none') END AS example
             FROM ledger l FULL JOIN facts f ON f.transaction_id = l.id
             WHERE l.id IS NULL OR f.transaction_id IS NULL
               OR (l.created_at AT TIME ZONE 'UTC')::date <> f.business_date
               OR (l.account_id, l.account_seq, l.created_at, extract(hour FROM l.created_at AT TIME ZONE 'UTC')::int,
                   l.currency, CASE WHEN l.amount < 0 THEN 'debit' ELSE 'credit' END,
                   l.amount::numeric, abs(l.amount)::numeric, l.balance_after::numeric,
                   l.counterparty, l.description, l.metadata, l.reverses,
                   l.risk_score, l.risk_level, l.ruleset, l.assessed_at)
                  IS DISTINCT FROM
                  (f.account_id, f.account_seq, f.created_at, f.hour::int,
                   f.currency, f.direction,
                   f.signed_amount * f.scale, f.amount * f.scale, f.balance_after * f.scale,
                   f.counterparty, f.description, f.metadata::text, f.reverses,
                   f.risk_score, f.risk_level, f.ruleset, f.assessed_at)
             ORDER BY coalesce(l.id, f.transaction_id) LIMIT 10",
        )
        .bind::<SqlUuid, _>(begin)
        .bind::<SqlUuid, _>(end)
        .bind::<SqlUuid, _>(begin)
        .bind::<SqlUuid, _>(end)
        .bind::<Date, _>(day),
    )
    .await
}

async fn compare_account_days(connection: &mut Connection, day: NaiveDate) -> Result<Found, RepositoryError> {
    let (begin, end) = id_range(day);
    find(
        connection,
        statement(
            "WITH sums AS (
               SELECT t.account_id, count(*) AS rows,
                 count(*) FILTER (WHERE t.amount > 0) AS credits, count(*) FILTER (WHERE t.amount < 0) AS debits,
                 coalesce(sum(t.amount) FILTER (WHERE t.amount > 0), 0) AS credit_sum,
                 coalesce(-sum(t.amount) FILTER (WHERE t.amount < 0), 0) AS debit_sum,
                 (min(ARRAY[t.account_seq, t.balance_after - t.amount]))[2] AS opening,
                 (max(ARRAY[t.account_seq, t.balance_after]))[2] AS closing,
                 count(r.risk_score) AS assessed, max(r.risk_score) AS max_score,
                 count(*) FILTER (WHERE r.risk_level = 'high') AS high
               FROM transactions t
               LEFT JOIN risk_assessments r ON r.account_id = t.account_id AND r.account_seq = t.account_seq
                 AND r.transaction_id >= ? AND r.transaction_id < ?
               WHERE t.id >= ? AND t.id < ?
               GROUP BY t.account_id
             ), ledger AS (
               SELECT s.*, a.currency FROM sums s JOIN accounts a ON a.account_id = s.account_id
             ), facts AS (
               SELECT f.*, ('1e' || c.decimals)::numeric AS scale
               FROM fact_account_day f LEFT JOIN currencies c ON c.code = f.currency
               WHERE f.business_date = ?
             )
             SELECT count(*) OVER () AS total,
               'account ' || coalesce(l.account_id, f.account_id)
                 || CASE WHEN l.account_id IS NULL THEN ' has a fact but no rows on that day'
                         WHEN f.account_id IS NULL THEN ' has rows on that day but no fact'
                         ELSE ': rows ' || l.rows || ' / ' || f.transaction_count || ', credits ' || l.credit_sum
                           || ' / ' || f.credit_sum || ', debits ' || l.debit_sum || ' / ' || f.debit_sum
                           || ', closing ' || l.closing || ' / ' || f.closing_balance END AS example
             FROM ledger l FULL JOIN facts f ON f.account_id = l.account_id
             WHERE l.account_id IS NULL OR f.account_id IS NULL
               OR (l.currency, l.rows, l.credits, l.debits, l.credit_sum, l.debit_sum,
                   l.opening::numeric, l.closing::numeric, l.assessed, l.max_score, l.high)
                  IS DISTINCT FROM
                  (f.currency, f.transaction_count, f.credit_count, f.debit_count, f.credit_sum * f.scale,
                   f.debit_sum * f.scale, f.opening_balance * f.scale, f.closing_balance * f.scale,
                   f.assessed_count, f.max_risk_score, f.high_risk_count)
             ORDER BY coalesce(l.account_id, f.account_id) LIMIT 10",
        )
        .bind::<SqlUuid, _>(begin)
        .bind::<SqlUuid, _>(end)
        .bind::<SqlUuid, _>(begin)
        .bind::<SqlUuid, _>(end)
        .bind::<Date, _>(day),
    )
    .await
}
