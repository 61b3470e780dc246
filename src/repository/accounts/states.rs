//! The states of accounts for posting, with and without a lock.

use std::collections::HashMap;

use diesel::sql_types::{Array, Text};
use diesel_async::RunQueryDsl;

use super::row::AccountRow;
use crate::{
    domain::{AccountId, AccountState},
    repository::{Bind, Connection, RepositoryError, statement},
};

/// The states of those of the accounts that exist, unlocked: they may have moved on when this returns.
pub async fn states(
    connection: &mut Connection,
    account_ids: &[&str],
) -> Result<HashMap<AccountId, AccountState>, RepositoryError> {
    let rows = statement(
        "SELECT account_id, currency, balance, account_seq, min_balance, last_created_at, opened_at
         FROM accounts WHERE account_id = ANY(?)",
    )
    .bind::<Array<Text>, _>(account_ids)
    .load::<AccountRow>(connection)
    .await?;
    AccountRow::into_states(rows)
}

/// Opens the accounts that are missing and locks all of them until the transaction ends. Both lists must be sorted
/// by account, so that two groups never wait for each other crosswise.
pub async fn open_and_lock(
    connection: &mut Connection,
    account_ids: &[&str],
    currencies: &[&str],
) -> Result<HashMap<AccountId, AccountState>, RepositoryError> {
    statement(
        "INSERT INTO accounts (account_id, currency) SELECT * FROM unnest(?, ?)
         ON CONFLICT (account_id) DO NOTHING",
    )
    .bind::<Array<Text>, _>(account_ids)
    .bind::<Array<Text>, _>(currencies)
    .execute(connection)
    .await?;
    let rows = statement(
        "SELECT account_id, currency, balance, account_seq, min_balance, last_created_at, opened_at
         FROM accounts WHERE account_id = ANY(?) ORDER BY account_id FOR UPDATE",
    )
    .bind::<Array<Text>, _>(account_ids)
    .load::<AccountRow>(connection)
    .await?;
    AccountRow::into_states(rows)
}
