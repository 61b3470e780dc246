//! Reading the ledger: rows by id and by idempotency key.

use diesel::{
    OptionalExtension,
    sql_types::{Array, Text, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::row::TransactionRow;
use crate::{
    domain::Transaction,
    repository::{Bind, Connection, RepositoryError, statement},
};

/// The row with that id, or None.
pub async fn find(connection: &mut Connection, id: Uuid) -> Result<Option<Transaction>, RepositoryError> {
    let row = statement(
        "SELECT t.account_id, a.currency, t.account_seq, t.id, t.amount, t.balance_after, t.created_at, t.reverses,
                t.idempotency_key, t.counterparty, t.description, t.metadata::text AS metadata
         FROM transactions t JOIN accounts a USING (account_id) WHERE t.id = ?",
    )
    .bind::<SqlUuid, _>(id)
    .get_result::<TransactionRow>(connection)
    .await
    .optional()?;
    row.map(TransactionRow::into_transaction).transpose()
}

/// The rows that already stand under these (account, key) pairs. The accounts must be locked by an earlier statement
/// of the same transaction: then no such row can appear later.
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
