//! Opening an account, and setting its limit.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{look_up::find, row::Account};
use crate::{
    domain::{AccountId, Currency},
    repository::{Connection, RepositoryError, schema::accounts},
};

#[derive(Insertable)]
#[diesel(table_name = accounts)]
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
    let is_new = diesel::insert_into(accounts::table)
        .values(&account)
        .on_conflict_do_nothing()
        .execute(connection)
        .await?
        == 1;
    if !is_new {
        diesel::update(
            accounts::table.find(account_id.as_str()).filter(accounts::currency.eq(currency.code())),
        )
        .set(accounts::min_balance.eq(min_balance))
        .execute(connection)
        .await?;
    }
    let account = find(connection, account_id).await?.ok_or_else(|| RepositoryError::Corrupt {
        what: "account",
        detail: format!("{account_id} disappeared while it was opened"),
    })?;
    Ok((is_new, account))
}
