//! Accounts: the state under lock for a posting, and balances for readers.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{Array, BigInt, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;

use super::{Bind, Connection, RepositoryError, statement};
use crate::domain::{AccountId, AccountState, Currency};

#[derive(QueryableByName)]
struct AccountRow {
    #[diesel(sql_type = Text)]
    account_id: String,
    #[diesel(sql_type = Text)]
    currency: String,
    #[diesel(sql_type = BigInt)]
    balance: i64,
    #[diesel(sql_type = BigInt)]
    account_seq: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    min_balance: Option<i64>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    last_created_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Timestamptz)]
    opened_at: DateTime<Utc>,
}

/// An account as readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its identifier.
    pub account_id: AccountId,
    /// Currency, balance, sequence number and limit.
    pub state: AccountState,
    /// When it was opened.
    pub opened_at: DateTime<Utc>,
}

impl AccountRow {
    fn into_account(self) -> Result<Account, RepositoryError> {
        let corrupt = |what: &'static str, detail: String| RepositoryError::Corrupt { what, detail };
        Ok(Account {
            account_id: AccountId::parse(&self.account_id)
                .map_err(|error| corrupt("account_id", error.to_string()))?,
            state: AccountState {
                currency: Currency::parse(&self.currency)
                    .map_err(|error| corrupt("currency", error.to_string()))?,
                balance: self.balance,
                account_seq: self.account_seq,
                min_balance: self.min_balance,
                last_created_at: self.last_created_at,
            },
            opened_at: self.opened_at,
        })
    }
}

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

/// Opens the accounts that are missing and locks all of them until the transaction ends. Both lists must be sorted
/// by account, so that two groups never wait for each other crosswise.
pub(super) async fn open_and_lock(
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
    rows.into_iter()
        .map(|row| row.into_account().map(|account| (account.account_id, account.state)))
        .collect()
}
