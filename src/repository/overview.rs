//! Counts over whole tables, for people who watch a small system such as the demo's. Not for a large ledger: nothing
//! here is served by an index.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Integer, SmallInt, Text, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{Bind, Connection, RepositoryError, statement};

/// How far everything has come.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Progress {
    /// Rows of the ledger.
    #[diesel(sql_type = BigInt)]
    pub transactions: i64,
    /// Accounts that have at least one.
    #[diesel(sql_type = BigInt)]
    pub accounts: i64,
    /// Events that wait to be published.
    #[diesel(sql_type = BigInt)]
    pub outbox: i64,
    /// Records in all topics of the PostgreSQL broker.
    #[diesel(sql_type = BigInt)]
    pub records: i64,
    /// Transactions that were scored.
    #[diesel(sql_type = BigInt)]
    pub assessed: i64,
    /// Of those, with risk level high.
    #[diesel(sql_type = BigInt)]
    pub high: i64,
    /// Of those, with risk level medium.
    #[diesel(sql_type = BigInt)]
    pub medium: i64,
    /// Events that could not be handled.
    #[diesel(sql_type = BigInt)]
    pub dead_letters: i64,
    /// Rows of `fact_transactions`.
    #[diesel(sql_type = BigInt)]
    pub facts: i64,
}

/// Counts everything, in one snapshot.
pub async fn progress(connection: &mut Connection) -> Result<Progress, RepositoryError> {
    let progress = statement(
        "SELECT (SELECT count(*) FROM transactions) AS transactions,
                (SELECT count(*) FROM accounts WHERE account_seq > 0) AS accounts,
                (SELECT count(*) FROM outbox) AS outbox,
                (SELECT count(*) FROM broker_records) AS records,
                (SELECT count(*) FROM risk_assessments) AS assessed,
                (SELECT count(*) FROM risk_assessments WHERE risk_level = 'high') AS high,
                (SELECT count(*) FROM risk_assessments WHERE risk_level = 'medium') AS medium,
                (SELECT count(*) FROM dead_letters) AS dead_letters,
                (SELECT count(*) FROM fact_transactions) AS facts",
    )
    .get_result(connection)
    .await?;
    Ok(progress)
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// How many of these ids the ledger does not hold exactly once.
pub async fn not_held_once(connection: &mut Connection, ids: &[Uuid]) -> Result<i64, RepositoryError> {
    let found = statement(
        "SELECT count(*) AS count
         FROM unnest(?) AS acknowledged (id)
         WHERE (SELECT count(*) FROM transactions t WHERE t.id = acknowledged.id) <> 1",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .get_result::<Count>(connection)
    .await?;
    Ok(found.count)
}

/// One assessment, as a person reads it.
#[derive(Debug, Clone, QueryableByName)]
pub struct Striking {
    /// The account.
    #[diesel(sql_type = Text)]
    pub account_id: String,
    /// Which of its transactions.
    #[diesel(sql_type = BigInt)]
    pub account_seq: i64,
    /// 0–100.
    #[diesel(sql_type = SmallInt)]
    pub risk_score: i16,
    /// Every reason, one a line.
    #[diesel(sql_type = Text)]
    pub reasons: String,
}

/// The transactions with the highest scores, one an account.
pub async fn most_striking(
    connection: &mut Connection,
    limit: i32,
) -> Result<Vec<Striking>, RepositoryError> {
    let rows = statement(
        "SELECT account_id, account_seq, risk_score,
                (SELECT coalesce(string_agg(reason ->> 'reason', E'\\n'), '')
                 FROM json_array_elements(reasons) AS reason) AS reasons
         FROM (SELECT DISTINCT ON (account_id) * FROM risk_assessments
               ORDER BY account_id, risk_score DESC, account_seq) AS worst
         ORDER BY risk_score DESC, account_id LIMIT ?",
    )
    .bind::<Integer, _>(limit)
    .load(connection)
    .await?;
    Ok(rows)
}
