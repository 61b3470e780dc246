//! Looking up accounts for readers: one, or many in one query.

use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{Array, BigInt, Text},
};
use diesel_async::RunQueryDsl;

use super::row::{Account, AccountRow};
use crate::{
    domain::AccountId,
    repository::{Bind, Connection, RepositoryError, statement},
};

/// The account, or None if nobody opened it.
pub async fn find(
    connection: &mut Connection,
    account_id: &AccountId,
) -> Result<Option<Account>, RepositoryError> {
    let row = statement(
        "SELECT account_id, currency, balance, account_seq, min_balance, last_created_at, opened_at
         FROM accounts WHERE account_id = ?",
    )
    .bind::<Text, _>(account_id.as_str())
    .get_result::<AccountRow>(connection)
    .await
    .optional()?;
    row.map(AccountRow::into_account).transpose()
}

#[derive(QueryableByName)]
struct AskedRow {
    #[diesel(sql_type = BigInt)]
    ordinal: i64,
    #[diesel(embed)]
    row: AccountRow,
}

/// The accounts in the order of the question, each None if nobody opened it. One probe of the primary key each,
/// whatever the statistics say.
pub async fn find_all(
    connection: &mut Connection,
    account_ids: &[&str],
) -> Result<Vec<Option<Account>>, RepositoryError> {
    let rows = statement(
        "SELECT w.ordinal, a.* FROM unnest(?) WITH ORDINALITY AS w (account_id, ordinal)
         CROSS JOIN LATERAL (
           SELECT account_id, currency, balance, account_seq, min_balance, last_created_at, opened_at
           FROM accounts a WHERE a.account_id = w.account_id OFFSET 0) AS a",
    )
    .bind::<Array<Text>, _>(account_ids)
    .load::<AskedRow>(connection)
    .await?;
    let mut found: Vec<Option<Account>> = account_ids.iter().map(|_| None).collect();
    for AskedRow { ordinal, row } in rows {
        let account = row.into_account()?;
        let place = usize::try_from(ordinal - 1).ok().and_then(|place| found.get_mut(place));
        place.map(|place| place.replace(account));
    }
    Ok(found)
}
