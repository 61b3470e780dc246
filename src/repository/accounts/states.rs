//! The states of accounts for posting, with and without a lock.

use std::collections::HashMap;

use diesel::{
    prelude::*,
    sql_types::{Array, Text},
};
use diesel_async::RunQueryDsl;

use super::row::AccountRow;
use crate::{
    domain::{AccountId, AccountState},
    repository::{Bind, Connection, RepositoryError, schema::accounts, statement},
};

/// Returns the states of the accounts that exist, unlocked: they may change before this returns.
pub async fn states(
    connection: &mut Connection,
    account_ids: &[&str],
) -> Result<HashMap<AccountId, AccountState>, RepositoryError> {
    let rows = accounts::table
        .filter(accounts::account_id.eq_any(account_ids))
        .select(AccountRow::as_select())
        .load(connection)
        .await?;
    AccountRow::into_states(rows)
}

/// Opens the accounts that are missing and locks all of them until the end of the database transaction. Both lists must
/// be sorted by account, so that two groups never deadlock.
pub async fn open_and_lock(
    connection: &mut Connection,
    account_ids: &[&str],
    currencies: &[&str],
) -> Result<HashMap<AccountId, AccountState>, RepositoryError> {
    statement(include_str!("open_missing.sql"))
        .bind::<Array<Text>, _>(account_ids)
        .bind::<Array<Text>, _>(currencies)
        .execute(connection)
        .await?;
    let rows = accounts::table
        .filter(accounts::account_id.eq_any(account_ids))
        .order(accounts::account_id)
        .select(AccountRow::as_select())
        .for_update()
        .load(connection)
        .await?;
    AccountRow::into_states(rows)
}
