//! Accounts: the state under lock for a posting, and balances for readers.

use std::collections::HashMap;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz},
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

/// The states of those of the accounts that exist, unlocked: they may have moved on when this returns.
pub(super) async fn states(
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
    by_account(rows)
}

/// The states of those of the accounts that a dry run has touched; see `repository::rehearsals`.
pub(super) async fn rehearsed_states(
    connection: &mut Connection,
    account_ids: &[&str],
) -> Result<HashMap<AccountId, AccountState>, RepositoryError> {
    let rows = statement(
        "SELECT account_id, currency, balance, account_seq, min_balance, last_created_at, opened_at
         FROM rehearsed_accounts WHERE account_id = ANY(?)",
    )
    .bind::<Array<Text>, _>(account_ids)
    .load::<AccountRow>(connection)
    .await?;
    by_account(rows)
}

fn by_account(rows: Vec<AccountRow>) -> Result<HashMap<AccountId, AccountState>, RepositoryError> {
    rows.into_iter()
        .map(|row| row.into_account().map(|account| (account.account_id, account.state)))
        .collect()
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
    by_account(rows)
}

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

/// The account as it was at a moment: from the row that was last then. None if nobody has opened it to this day;
/// nothing on it if its first row came later. `min_balance` is today's, since its history is not kept.
pub async fn state_at(
    connection: &mut Connection,
    account_id: &AccountId,
    at: DateTime<Utc>,
) -> Result<Option<AccountState>, RepositoryError> {
    let Some(account) = find(connection, account_id).await? else { return Ok(None) };
    // Rows have no finer time than microseconds.
    let after = at.trunc_subsecs(6) + TimeDelta::microseconds(1);
    let account_seq = first_seq_from(connection, account_id, after).await?.saturating_sub(1);
    let row = statement("SELECT balance_after AS balance, created_at FROM transactions WHERE account_id = ? AND account_seq = ?")
        .bind::<Text, _>(account_id.as_str())
        .bind::<BigInt, _>(account_seq)
        .get_result::<PastBalance>(connection)
        .await
        .optional()?;
    let (balance, last_created_at) = row.map_or((0, None), |row| (row.balance, Some(row.created_at)));
    Ok(Some(AccountState { balance, account_seq, last_created_at, ..account.state }))
}

#[derive(QueryableByName)]
struct PastBalance {
    #[diesel(sql_type = BigInt)]
    balance: i64,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct Sequence {
    #[diesel(sql_type = BigInt)]
    account_seq: i64,
}

/// The sequence numbers of the account's rows created at or after `from` and before `to`, half open.
pub(super) async fn seq_range(
    connection: &mut Connection,
    account_id: &AccountId,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
) -> Result<(i64, i64), RepositoryError> {
    let from_seq = match from {
        Some(from) => first_seq_from(connection, account_id, from).await?,
        None => 1,
    };
    let to_seq = match to {
        Some(to) => first_seq_from(connection, account_id, to).await?,
        None => i64::MAX,
    };
    Ok((from_seq, to_seq))
}

/// The sequence number of the account's first row created at or after a moment; one past the last if there is none,
/// 1 if the account does not exist. A binary search over the primary key, since `created_at` never decreases with
/// `account_seq`: some twenty probes for a million rows, and no index on time to keep.
async fn first_seq_from(
    connection: &mut Connection,
    account_id: &AccountId,
    from: DateTime<Utc>,
) -> Result<i64, RepositoryError> {
    let found = statement(
        "WITH RECURSIVE wanted (account_id, moment) AS (VALUES (?, ?)),
         search (low, high) AS (
           SELECT 1::bigint, a.account_seq + 1 FROM wanted JOIN accounts a USING (account_id)
           UNION ALL
           SELECT CASE WHEN t.created_at < wanted.moment THEN t.account_seq + 1 ELSE low END,
                  CASE WHEN t.created_at < wanted.moment THEN high ELSE t.account_seq END
           FROM search, wanted, transactions t
           WHERE low < high AND t.account_id = wanted.account_id AND t.account_seq = (low + high) / 2
         )
         SELECT low AS account_seq FROM search WHERE low >= high",
    )
    .bind::<Text, _>(account_id.as_str())
    .bind::<Timestamptz, _>(from)
    .get_result::<Sequence>(connection)
    .await
    .optional()?;
    Ok(found.map_or(1, |found| found.account_seq))
}
