//! Counts over whole tables, for people who watch a small system such as the demo. Not for a large ledger: no index
//! serves these statements.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Integer, SmallInt, Text, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{Bind, Connection, RepositoryError, statement};

/// How many rows have reached each step.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Progress {
    /// Transactions in the ledger.
    #[diesel(sql_type = BigInt)]
    pub transactions: i64,
    /// Accounts with at least one transaction.
    #[diesel(sql_type = BigInt)]
    pub accounts: i64,
    /// Events that wait in the outbox.
    #[diesel(sql_type = BigInt)]
    pub outbox: i64,
    /// Records in all topics of the PostgreSQL broker.
    #[diesel(sql_type = BigInt)]
    pub records: i64,
    /// Assessments.
    #[diesel(sql_type = BigInt)]
    pub assessed: i64,
    /// Assessments with risk level high.
    #[diesel(sql_type = BigInt)]
    pub high: i64,
    /// Assessments with risk level medium.
    #[diesel(sql_type = BigInt)]
    pub medium: i64,
    /// Dead letters.
    #[diesel(sql_type = BigInt)]
    pub dead_letters: i64,
    /// Rows of `fact_transactions`.
    #[diesel(sql_type = BigInt)]
    pub facts: i64,
}

/// Counts everything, in one snapshot.
pub async fn progress(connection: &mut Connection) -> Result<Progress, RepositoryError> {
    Ok(statement(include_str!("overview/progress.sql")).get_result(connection).await?)
}

#[derive(QueryableByName)]
struct Missing {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Returns how many of these ids the ledger does not hold exactly once.
pub async fn not_held_once(connection: &mut Connection, ids: &[Uuid]) -> Result<i64, RepositoryError> {
    let missing: Missing = statement(include_str!("overview/not_held_once.sql"))
        .bind::<Array<SqlUuid>, _>(ids)
        .get_result(connection)
        .await?;
    Ok(missing.count)
}

/// An assessment with its reasons as text.
#[derive(Debug, Clone, QueryableByName)]
pub struct HighestScored {
    /// The account.
    #[diesel(sql_type = Text)]
    pub account_id: String,
    /// The transaction's sequence number in the account.
    #[diesel(sql_type = BigInt)]
    pub account_seq: i64,
    /// The score, 0–100.
    #[diesel(sql_type = SmallInt)]
    pub risk_score: i16,
    /// The reasons, one per line.
    #[diesel(sql_type = Text)]
    pub reasons: String,
}

/// Returns the assessments with the highest scores, at most one per account.
pub async fn highest_scored(
    connection: &mut Connection,
    limit: i32,
) -> Result<Vec<HighestScored>, RepositoryError> {
    let rows = statement(include_str!("overview/highest_scored.sql"))
        .bind::<Integer, _>(limit)
        .load(connection)
        .await?;
    Ok(rows)
}
