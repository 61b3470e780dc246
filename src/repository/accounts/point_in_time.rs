//! An account at a moment in the past.

use std::ops::Range;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use diesel::{
    QueryableByName,
    prelude::*,
    sql_types::{BigInt, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;

use super::look_up::find;
use crate::{
    domain::{AccountId, AccountState},
    repository::{Bind, Connection, RepositoryError, schema::transactions, statement},
};

/// Returns the state of an account at a moment, from its last transaction until then. An account that had no
/// transaction yet has a balance of zero. `min_balance` is today's, since its history is not kept. Returns None if the
/// account does not exist today.
pub async fn state_at(
    connection: &mut Connection,
    account_id: &AccountId,
    at: DateTime<Utc>,
) -> Result<Option<AccountState>, RepositoryError> {
    let Some(account) = find(connection, account_id).await? else { return Ok(None) };
    // Rows have no finer time than microseconds.
    let after = at.trunc_subsecs(6) + TimeDelta::microseconds(1);
    let account_seq = first_seq_from(connection, account_id, after).await?.saturating_sub(1);
    let row: Option<(i64, DateTime<Utc>)> = transactions::table
        .find((account_id.as_str(), account_seq))
        .select((transactions::balance_after, transactions::created_at))
        .get_result(connection)
        .await
        .optional()?;
    let (balance, last_created_at) =
        row.map_or((0, None), |(balance, created_at)| (balance, Some(created_at)));
    Ok(Some(AccountState { balance, account_seq, last_created_at, ..account.state }))
}

#[derive(QueryableByName)]
struct FirstSeq {
    #[diesel(sql_type = BigInt)]
    account_seq: i64,
}

/// Returns the range of `account_seq` of the transactions created at or after `from` and before `to`.
pub(in crate::repository) async fn seq_range(
    connection: &mut Connection,
    account_id: &AccountId,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
) -> Result<Range<i64>, RepositoryError> {
    let from_seq = match from {
        Some(from) => first_seq_from(connection, account_id, from).await?,
        None => 1,
    };
    let to_seq = match to {
        Some(to) => first_seq_from(connection, account_id, to).await?,
        None => i64::MAX,
    };
    Ok(from_seq..to_seq)
}

/// Returns the `account_seq` of the account's first transaction created at or after `from`. If there is none, returns
/// the next free number; if the account does not exist, returns 1.
///
/// `created_at` never decreases with `account_seq`, so a binary search over the primary key finds the row: twenty probes
/// for a million rows, and no index on time to maintain.
async fn first_seq_from(
    connection: &mut Connection,
    account_id: &AccountId,
    from: DateTime<Utc>,
) -> Result<i64, RepositoryError> {
    let found = statement(include_str!("first_seq_from.sql"))
        .bind::<Text, _>(account_id.as_str())
        .bind::<Timestamptz, _>(from)
        .get_result::<FirstSeq>(connection)
        .await
        .optional()?;
    Ok(found.map_or(1, |found| found.account_seq))
}
