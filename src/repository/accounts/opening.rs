//! Opening an account, and setting its limit.

use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{BigInt, Bool, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::{look_up::find, row::Account};
use crate::{
    domain::{AccountId, Currency},
    repository::{Bind, Connection, RepositoryError, statement},
};

/// Opens the account, or sets its limit if it is open with that currency. Answers whether it was opened now, and the
/// account as it is; an account of another currency is left as it is.
pub async fn open_or_limit(
    connection: &mut Connection,
    account_id: &AccountId,
    currency: Currency,
    min_balance: Option<i64>,
) -> Result<(bool, Account), RepositoryError> {
    let changed = statement(
        "INSERT INTO accounts (account_id, currency, min_balance) VALUES (?, ?, ?)
         ON CONFLICT (account_id) DO UPDATE SET min_balance = excluded.min_balance
         WHERE accounts.currency = excluded.currency
         RETURNING xmax = 0 AS opened",
    )
    .bind::<Text, _>(account_id.as_str())
    .bind::<Text, _>(currency.code())
    .bind::<Nullable<BigInt>, _>(min_balance)
    .get_result::<Opened>(connection)
    .await
    .optional()?;
    let account = find(connection, account_id).await?.ok_or_else(|| RepositoryError::Corrupt {
        what: "account",
        detail: "it was there a moment ago".into(),
    })?;
    Ok((changed.is_some_and(|changed| changed.opened), account))
}

#[derive(QueryableByName)]
struct Opened {
    #[diesel(sql_type = Bool)]
    opened: bool,
}
