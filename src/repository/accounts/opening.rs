//! Opens an account, and sets its limit.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{
    look_up::find,
    row::{Account, AccountRow},
};
use crate::{
    domain::{AccountId, Currency},
    repository::{Connection, RepositoryError, schema::accounts},
};

/// `treat_none_as_default_value = false` lets diesel cache the prepared statement, since its text never changes.
#[derive(Insertable)]
#[diesel(table_name = accounts, treat_none_as_default_value = false)]
struct NewAccount<'a> {
    account_id: &'a str,
    currency: &'a str,
    min_balance: Option<i64>,
}

/// Opens the account, or sets its limit if it exists with that currency. Returns whether it was opened now, and the
/// account afterwards. An account with another currency stays unchanged.
pub async fn open_or_limit(
    connection: &mut Connection,
    account_id: &AccountId,
    currency: Currency,
    min_balance: Option<i64>,
) -> Result<(bool, Account), RepositoryError> {
    let account = NewAccount { account_id: account_id.as_str(), currency: currency.code(), min_balance };
    let opened = diesel::insert_into(accounts::table)
        .values(&account)
        .on_conflict_do_nothing()
        .returning(AccountRow::as_returning())
        // Not `get_result`: it does not wait for the commit.
        .get_results(connection)
        .await?;
    if let Some(row) = opened.into_iter().next() {
        return Ok((true, row.into_account()?));
    }
    Ok((false, set_limit(connection, account_id, currency, min_balance).await?))
}

/// Sets the limit of an account that exists, if it has that currency. Returns the account afterwards.
async fn set_limit(
    connection: &mut Connection,
    account_id: &AccountId,
    currency: Currency,
    min_balance: Option<i64>,
) -> Result<Account, RepositoryError> {
    let account = accounts::table.find(account_id.as_str()).filter(accounts::currency.eq(currency.code()));
    let limited = diesel::update(account)
        .set(accounts::min_balance.eq(min_balance))
        .returning(AccountRow::as_returning())
        .get_results(connection)
        .await?;
    if let Some(row) = limited.into_iter().next() {
        return row.into_account();
    }
    find(connection, account_id).await?.ok_or_else(|| RepositoryError::Corrupt {
        what: "account",
        detail: format!("{account_id} disappeared while its limit was set"),
    })
}
