//! Checks the ledger against itself, and assessments against the ledger. Call [`super::create_functions()`]
//! first.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, SmallInt, Text},
};
use diesel_async::RunQueryDsl;

use super::{
    super::{Bind, Connection, RepositoryError, statement},
    findings::{Findings, find},
};
use crate::domain::CURRENCIES;

/// The sizes of the tables to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct TableCounts {
    /// Rows of `accounts`.
    #[diesel(sql_type = BigInt)]
    pub accounts: i64,
    /// Rows of `transactions`.
    #[diesel(sql_type = BigInt)]
    pub transactions: i64,
    /// Rows of `risk_assessments`.
    #[diesel(sql_type = BigInt)]
    pub assessments: i64,
    /// Rows of `transactions` that reverse another one.
    #[diesel(sql_type = BigInt)]
    pub reversals: i64,
    /// Rows of `dead_letters`.
    #[diesel(sql_type = BigInt)]
    pub dead_letters: i64,
    /// Rows of `currencies`.
    #[diesel(sql_type = BigInt)]
    pub currencies: i64,
}

/// Counts the rows of each table, in one snapshot.
pub async fn table_counts(connection: &mut Connection) -> Result<TableCounts, RepositoryError> {
    Ok(statement(include_str!("ledger/table_counts.sql")).get_result(connection).await?)
}

/// Finds idempotency keys that an account has more than once.
pub async fn duplicate_keys(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("ledger/duplicate_keys.sql"))).await
}

/// Finds transactions whose number, balance or time does not follow from the previous transaction of the account.
pub async fn sequence_errors(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("ledger/sequence_errors.sql"))).await
}

/// Finds accounts whose balance or sequence number does not follow from their transactions.
pub async fn balance_mismatches(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("ledger/balance_mismatches.sql"))).await
}

/// Finds reversals whose transaction is not in the same account, has another amount, or is reversed more than once.
pub async fn reversal_errors(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("ledger/reversal_errors.sql"))).await
}

/// Finds transactions and assessments that are dated later than the database's clock.
pub async fn future_rows(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("ledger/future.sql"))).await
}

/// Finds transactions whose id is not made of their time, so that ranges of ids do not find them.
pub async fn id_errors(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("ledger/id_errors.sql"))).await
}

/// Finds currencies that this binary does not know or knows with other decimals, and currencies that are missing.
pub async fn currency_errors(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    let (codes, decimals): (Vec<&str>, Vec<i16>) =
        CURRENCIES.iter().map(|(code, decimals)| (*code, i16::from(*decimals))).unzip();
    find(
        connection,
        statement(include_str!("ledger/currency_errors.sql"))
            .bind::<Array<Text>, _>(codes)
            .bind::<Array<SmallInt>, _>(decimals),
    )
    .await
}

/// Finds assessments whose reasons do not sum to their score.
pub async fn unexplained_scores(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("ledger/unexplained_scores.sql"))).await
}

/// Finds why changes of transactions would not be refused.
pub async fn append_only_errors(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("ledger/append_only.sql"))).await
}

/// Finds transactions with more than one assessment.
pub async fn duplicate_assessments(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("ledger/duplicate_assessments.sql"))).await
}

/// Finds assessments whose transaction is missing from the ledger, or has another id there.
pub async fn assessment_mismatches(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("ledger/assessment_mismatches.sql"))).await
}

/// Finds transactions of the snapshot that still have neither an assessment nor a dead letter of `group`. Call
/// [`super::snapshot()`] first.
pub async fn unassessed(connection: &mut Connection, group: &str) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("ledger/unassessed.sql")).bind::<Text, _>(group)).await
}
