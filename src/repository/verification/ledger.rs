//! The ledger against itself, and assessments against the ledger.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;

use super::{Bind, Connection, Found, RepositoryError, find, statement};

/// How much there is to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Counts {
    /// Rows of `accounts`.
    #[diesel(sql_type = BigInt)]
    pub accounts: i64,
    /// Rows of `transactions`.
    #[diesel(sql_type = BigInt)]
    pub transactions: i64,
    /// Rows of `risk_assessments`.
    #[diesel(sql_type = BigInt)]
    pub assessments: i64,
    /// Rows of `transactions` that reverse another.
    #[diesel(sql_type = BigInt)]
    pub reversals: i64,
    /// Rows of `dead_letters`.
    #[diesel(sql_type = BigInt)]
    pub dead_letters: i64,
}

/// Counts the tables.
pub async fn counts(connection: &mut Connection) -> Result<Counts, RepositoryError> {
    let counts = statement(
        "SELECT (SELECT count(*) FROM accounts) AS accounts, (SELECT count(*) FROM transactions) AS transactions,
           (SELECT count(*) FROM risk_assessments) AS assessments,
           (SELECT count(*) FROM transactions WHERE reverses IS NOT NULL) AS reversals,
           (SELECT count(*) FROM dead_letters) AS dead_letters",
    )
    .get_result(connection)
    .await?;
    Ok(counts)
}

/// Idempotency keys that an account has more than once.
pub async fn keys_repeated(connection: &mut Connection) -> Result<Found, RepositoryError> {
    find(
        connection,
        statement(
            "SELECT count(*) OVER () AS total,
               'account ' || account_id || ' has key ' || idempotency_key || ' ' || count(*) || ' times' AS example
             FROM transactions GROUP BY account_id, idempotency_key HAVING count(*) > 1
             ORDER BY account_id, idempotency_key LIMIT 10",
        ),
    )
    .await
}

/// Rows that do not follow from the row before them in their account: number, balance, time.
pub async fn sequences(connection: &mut Connection) -> Result<Found, RepositoryError> {
    find(
        connection,
        statement(
            "SELECT count(*) OVER () AS total,
               'account ' || account_id || ' row ' || account_seq || ' (balance ' || balance_after || ', amount '
                 || amount || ', minor units) follows row ' || last_seq || ' (balance ' || last_balance || ')'
                 || CASE WHEN created_at < last_created_at THEN ' and is older' ELSE '' END AS example
             FROM (SELECT account_id, account_seq, amount, balance_after, created_at,
                     lag(account_seq, 1, 0::bigint) OVER of_account AS last_seq,
                     lag(balance_after, 1, 0::bigint) OVER of_account AS last_balance,
                     lag(created_at) OVER of_account AS last_created_at
                   FROM transactions
                   WINDOW of_account AS (PARTITION BY account_id ORDER BY account_seq)) AS rows
             WHERE account_seq <> last_seq + 1 OR balance_after::numeric <> last_balance::numeric + amount
               OR created_at < last_created_at
             ORDER BY account_id, account_seq LIMIT 10",
        ),
    )
    .await
}

/// Accounts whose balance or sequence number is not what their rows add up to.
pub async fn balances(connection: &mut Connection) -> Result<Found, RepositoryError> {
    find(
        connection,
        statement(
            "SELECT count(*) OVER () AS total,
               'account ' || coalesce(a.account_id, t.account_id) || ': balance '
                 || coalesce(a.balance::text, 'none') || ' at row ' || coalesce(a.account_seq::text, 'none')
                 || ', but ' || coalesce(t.rows, 0) || ' rows up to ' || coalesce(t.last_seq, 0) || ' sum to '
                 || coalesce(t.sum, 0) || ' (minor units)' AS example
             FROM accounts a
             FULL JOIN (SELECT account_id, count(*) AS rows, max(account_seq) AS last_seq, sum(amount) AS sum
                        FROM transactions GROUP BY account_id) AS t ON t.account_id = a.account_id
             WHERE a.account_id IS NULL OR a.balance <> coalesce(t.sum, 0)
               OR a.account_seq <> coalesce(t.rows, 0) OR a.account_seq <> coalesce(t.last_seq, 0)
             ORDER BY coalesce(a.account_id, t.account_id) LIMIT 10",
        ),
    )
    .await
}

/// Reversals that are not the opposite of a row of the same account, or not the only one.
pub async fn reversals(connection: &mut Connection) -> Result<Found, RepositoryError> {
    find(
        connection,
        statement(
            "SELECT count(*) OVER () AS total,
               'account ' || account_id || ' row ' || account_seq || ' reverses ' || reverses || ', '
                 || CASE WHEN amount_reversed IS NULL THEN 'which its account does not have'
                         WHEN times > 1 THEN 'which is reversed ' || times || ' times'
                         ELSE 'of amount ' || amount_reversed || ', by ' || amount || ' (minor units)' END AS example
             FROM (SELECT r.account_id, r.account_seq, r.reverses, r.amount, t.amount AS amount_reversed,
                     count(*) OVER (PARTITION BY r.account_id, r.reverses) AS times
                   FROM transactions r
                   LEFT JOIN transactions t ON t.id = r.reverses AND t.account_id = r.account_id
                   WHERE r.reverses IS NOT NULL) AS reversals
             WHERE amount_reversed IS NULL OR amount_reversed <> -amount OR times > 1
             ORDER BY account_id, account_seq LIMIT 10",
        ),
    )
    .await
}

/// Rows with more than one assessment.
pub async fn assessments_repeated(connection: &mut Connection) -> Result<Found, RepositoryError> {
    find(
        connection,
        statement(
            "SELECT count(*) OVER () AS total,
               'account ' || account_id || ' row ' || account_seq || ' has ' || count(*) || ' assessments' AS example
             FROM risk_assessments GROUP BY account_id, account_seq HAVING count(*) > 1
             ORDER BY account_id, account_seq LIMIT 10",
        ),
    )
    .await
}

/// Assessments of rows that the ledger does not have, or has under another id. Materialised first: for the sake of ten
/// ordered examples the planner would otherwise read both tables in the order of their keys, at random places.
pub async fn assessments_without_row(connection: &mut Connection) -> Result<Found, RepositoryError> {
    find(
        connection,
        statement(
            "WITH unlike AS MATERIALIZED (
               SELECT r.account_id, r.account_seq, r.transaction_id, t.id FROM risk_assessments r
               LEFT JOIN transactions t ON t.account_id = r.account_id AND t.account_seq = r.account_seq
               WHERE t.id IS DISTINCT FROM r.transaction_id)
             SELECT count(*) OVER () AS total,
               'the assessment of account ' || account_id || ' row ' || account_seq || ' names transaction '
                 || transaction_id || ', but the ledger has ' || coalesce(id::text, 'none there') AS example
             FROM unlike ORDER BY account_id, account_seq LIMIT 10",
        ),
    )
    .await
}

/// Rows of the remembered moment that have neither an assessment nor a dead letter of `group` now. Call
/// [`super::snapshot`] first.
pub async fn pending(connection: &mut Connection, group: &str) -> Result<Found, RepositoryError> {
    find(
        connection,
        statement(
            "WITH pending AS MATERIALIZED (
               SELECT t.account_id, t.account_seq, t.id FROM transactions t
               JOIN verify_accounts a ON a.account_id = t.account_id AND t.account_seq <= a.account_seq
               WHERE NOT EXISTS (SELECT FROM risk_assessments r
                                 WHERE r.account_id = t.account_id AND r.account_seq = t.account_seq)
                 AND NOT EXISTS (SELECT FROM dead_letters d
                                 WHERE d.event_id = t.id AND (d.consumer_group = ? OR d.record_offset IS NULL)))
             SELECT count(*) OVER () AS total,
               'account ' || account_id || ' row ' || account_seq || ' (' || id || ')' AS example
             FROM pending ORDER BY id LIMIT 10",
        )
        .bind::<Text, _>(group),
    )
    .await
}
