//! Looks up accounts for readers: one, or many in one query.

use diesel::{
    QueryableByName,
    prelude::*,
    sql_types::{Array, BigInt, Text},
};
use diesel_async::RunQueryDsl;

use super::row::{Account, AccountRow};
use crate::{
    domain::AccountId,
    repository::{Bind, Connection, RepositoryError, schema::accounts, statement},
};

/// Returns the account, or None if it does not exist.
pub async fn find(
    connection: &mut Connection,
    account_id: &AccountId,
) -> Result<Option<Account>, RepositoryError> {
    let row = accounts::table
        .find(account_id.as_str())
        .select(AccountRow::as_select())
        .get_result(connection)
        .await
        .optional()?;
    row.map(AccountRow::into_account).transpose()
}

#[derive(QueryableByName)]
struct FoundRow {
    #[diesel(sql_type = BigInt)]
    ordinal: i64,
    #[diesel(embed)]
    row: AccountRow,
}

/// Returns the accounts in the order of `account_ids`, with None for an account that does not exist.
pub async fn find_all(
    connection: &mut Connection,
    account_ids: &[&str],
) -> Result<Vec<Option<Account>>, RepositoryError> {
    let rows = statement(include_str!("find_all.sql"))
        .bind::<Array<Text>, _>(account_ids)
        .load::<FoundRow>(connection)
        .await?;
    let mut found: Vec<Option<Account>> = account_ids.iter().map(|_| None).collect();
    for FoundRow { ordinal, row } in rows {
        let account = row.into_account()?;
        let slot = usize::try_from(ordinal - 1).ok().and_then(|index| found.get_mut(index));
        slot.map(|slot| slot.replace(account));
    }
    Ok(found)
}
