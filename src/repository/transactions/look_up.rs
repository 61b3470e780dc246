//! Looks up transactions by id, by their numbers in their accounts, and by idempotency key.

use diesel::{
    QueryableByName,
    prelude::*,
    sql_types::{Array, BigInt, Text},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::row::TransactionRow;
use crate::{
    domain::{AccountId, IdempotencyKey, Transaction},
    repository::{Bind, Connection, RepositoryError, schema::transactions, statement},
};

/// Returns the transaction with this id, or None.
pub async fn find(connection: &mut Connection, id: Uuid) -> Result<Option<Transaction>, RepositoryError> {
    let row = transactions::table
        .filter(transactions::id.eq(id))
        .select(TransactionRow::as_select())
        .get_result(connection)
        .await
        .optional()?;
    row.map(TransactionRow::into_transaction).transpose()
}

/// Returns the transaction of an account with this key, or None.
pub async fn find_by_key(
    connection: &mut Connection,
    account_id: &AccountId,
    key: &IdempotencyKey,
) -> Result<Option<Transaction>, RepositoryError> {
    let row = transactions::table
        .filter(transactions::account_id.eq(account_id.as_str()))
        .filter(transactions::idempotency_key.eq(key.as_str()))
        .select(TransactionRow::as_select())
        .get_result(connection)
        .await
        .optional()?;
    row.map(TransactionRow::into_transaction).transpose()
}

#[derive(QueryableByName)]
struct FoundRow {
    #[diesel(sql_type = BigInt)]
    ordinal: i64,
    #[diesel(embed)]
    row: TransactionRow,
}

/// Returns the transactions with these accounts and numbers, in their order. Fails if one is missing: the caller has
/// read a row that belongs to it.
pub async fn find_all(
    connection: &mut Connection,
    account_ids: &[&str],
    account_seqs: &[i64],
) -> Result<Vec<Transaction>, RepositoryError> {
    let mut rows = statement(include_str!("find_all.sql"))
        .bind::<Array<Text>, _>(account_ids)
        .bind::<Array<BigInt>, _>(account_seqs)
        .load::<FoundRow>(connection)
        .await?;
    if rows.len() != account_ids.len() {
        let missing = account_ids.len().saturating_sub(rows.len());
        let detail = format!("{missing} of them are not in the ledger; `ledger verify` names them");
        return Err(RepositoryError::Corrupt { what: "assessments of transactions", detail });
    }
    rows.sort_unstable_by_key(|found| found.ordinal);
    rows.into_iter().map(|found| found.row.into_transaction()).collect()
}

/// Returns the transactions that exist under these pairs of account and idempotency key. If an earlier statement of the
/// same database transaction has locked the accounts, no such row can appear afterwards.
pub async fn existing(
    connection: &mut Connection,
    account_ids: &[&str],
    keys: &[&str],
) -> Result<Vec<Transaction>, RepositoryError> {
    let rows = statement(include_str!("existing.sql"))
        .bind::<Array<Text>, _>(account_ids)
        .bind::<Array<Text>, _>(keys)
        .load::<TransactionRow>(connection)
        .await?;
    rows.into_iter().map(TransactionRow::into_transaction).collect()
}
