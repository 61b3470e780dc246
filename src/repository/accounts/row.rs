//! A row of `accounts`, and the account that it describes.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{QueryableByName, pg::Pg, prelude::*};

use crate::{
    domain::{AccountId, AccountState, Currency},
    repository::{RepositoryError, schema::accounts},
};

/// A row of `accounts` as PostgreSQL returns it.
#[derive(Queryable, Selectable, QueryableByName)]
#[diesel(table_name = accounts, check_for_backend(Pg))]
pub(in crate::repository) struct AccountRow {
    account_id: String,
    currency: String,
    balance: i64,
    account_seq: i64,
    min_balance: Option<i64>,
    last_created_at: Option<DateTime<Utc>>,
    opened_at: DateTime<Utc>,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The identifier.
    pub account_id: AccountId,
    /// Currency, balance, sequence number and limit.
    pub state: AccountState,
    /// When the account was opened.
    pub opened_at: DateTime<Utc>,
}

impl AccountRow {
    pub(in crate::repository) fn into_account(self) -> Result<Account, RepositoryError> {
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

    /// Returns the states of the accounts by account.
    pub(in crate::repository) fn into_states(
        rows: Vec<Self>,
    ) -> Result<HashMap<AccountId, AccountState>, RepositoryError> {
        rows.into_iter()
            .map(|row| row.into_account().map(|account| (account.account_id, account.state)))
            .collect()
    }
}
