//! The statements of a dry run: temporary tables that hold the effect of earlier groups. See `posting::dry_run`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::{
    Bind, Connection, RepositoryError, accounts::AccountRow, postings::TransactionColumns, statement,
    transactions::TransactionRow,
};
use crate::domain::{AccountId, AccountState, Transaction};

/// The states of accounts after a group.
#[derive(Default)]
pub struct DryRunAccountColumns<'a> {
    account_ids: Vec<&'a str>,
    currencies: Vec<&'a str>,
    balances: Vec<i64>,
    account_seqs: Vec<i64>,
    min_balances: Vec<Option<i64>>,
    last_created_ats: Vec<Option<DateTime<Utc>>>,
}

impl<'a> DryRunAccountColumns<'a> {
    /// Adds an account.
    pub fn push(&mut self, account_id: &'a AccountId, state: &'a AccountState) {
        self.account_ids.push(account_id.as_str());
        self.currencies.push(state.currency.code());
        self.balances.push(state.balance);
        self.account_seqs.push(state.account_seq);
        self.min_balances.push(state.min_balance);
        self.last_created_ats.push(state.last_created_at);
    }
}

/// Creates the tables.
pub async fn create_tables(connection: &mut Connection) -> Result<(), RepositoryError> {
    connection.batch_execute(include_str!("dry_run/create_tables.sql")).await?;
    Ok(())
}

/// Returns the states of those accounts that the dry run has touched.
pub async fn account_states(
    connection: &mut Connection,
    account_ids: &[&str],
) -> Result<HashMap<AccountId, AccountState>, RepositoryError> {
    let rows = statement(include_str!("dry_run/account_states.sql"))
        .bind::<Array<Text>, _>(account_ids)
        .load::<AccountRow>(connection)
        .await?;
    AccountRow::into_states(rows)
}

/// Returns the transactions that the dry run would have created under these pairs of account and idempotency key.
pub async fn transactions(
    connection: &mut Connection,
    account_ids: &[&str],
    idempotency_keys: &[&str],
) -> Result<Vec<Transaction>, RepositoryError> {
    let rows = statement(include_str!("dry_run/transactions.sql"))
        .bind::<Array<Text>, _>(account_ids)
        .bind::<Array<Text>, _>(idempotency_keys)
        .load::<TransactionRow>(connection)
        .await?;
    rows.into_iter().map(TransactionRow::into_transaction).collect()
}

/// Remembers the states of accounts.
pub async fn remember_accounts(
    connection: &mut Connection,
    accounts: DryRunAccountColumns<'_>,
) -> Result<(), RepositoryError> {
    statement(include_str!("dry_run/remember_accounts.sql"))
        .bind::<Array<Text>, _>(accounts.account_ids)
        .bind::<Array<Text>, _>(accounts.currencies)
        .bind::<Array<BigInt>, _>(accounts.balances)
        .bind::<Array<BigInt>, _>(accounts.account_seqs)
        .bind::<Array<Nullable<BigInt>>, _>(accounts.min_balances)
        .bind::<Array<Nullable<Timestamptz>>, _>(accounts.last_created_ats)
        .execute(connection)
        .await?;
    Ok(())
}

/// Remembers transactions.
pub async fn remember_transactions(
    connection: &mut Connection,
    transactions: TransactionColumns<'_>,
) -> Result<(), RepositoryError> {
    statement(include_str!("dry_run/remember_transactions.sql"))
        .bind::<Array<Text>, _>(transactions.account_ids)
        .bind::<Array<BigInt>, _>(transactions.account_seqs)
        .bind::<Array<SqlUuid>, _>(transactions.ids)
        .bind::<Array<BigInt>, _>(transactions.amounts)
        .bind::<Array<BigInt>, _>(transactions.balances_after)
        .bind::<Array<Timestamptz>, _>(transactions.created_ats)
        .bind::<Array<Nullable<SqlUuid>>, _>(transactions.reverses)
        .bind::<Array<Text>, _>(transactions.idempotency_keys)
        .bind::<Array<Nullable<Text>>, _>(transactions.counterparties)
        .bind::<Array<Nullable<Text>>, _>(transactions.descriptions)
        .bind::<Array<Nullable<Text>>, _>(transactions.metadata)
        .execute(connection)
        .await?;
    Ok(())
}
