//! Looks up transactions by id and by idempotency key.

use diesel::{
    prelude::*,
    sql_types::{Array, Text},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::row::TransactionRow;
use crate::{
    domain::Transaction,
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
