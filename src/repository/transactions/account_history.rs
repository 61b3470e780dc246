//! Reads for scoring: the transactions that events describe, and the account history before them.
//!
//! Each function is one query for a whole batch, with one probe of the primary key for each event or account.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use futures::TryStreamExt;
use uuid::Uuid;

use crate::repository::{Bind, Connection, RepositoryError, statement};

/// The transaction that the ledger holds under an event's account and `account_seq`.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct LedgerRow {
    /// The event's position in the arguments, from 1.
    #[diesel(sql_type = BigInt)]
    pub ordinal: i64,
    /// The id of the transaction.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// The amount in minor units, negative for a debit.
    #[diesel(sql_type = BigInt)]
    pub amount: i64,
    /// The balance after it, in minor units.
    #[diesel(sql_type = BigInt)]
    pub balance_after: i64,
    /// When it was created.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// The counterparty.
    #[diesel(sql_type = Nullable<Text>)]
    pub counterparty: Option<String>,
    /// The description.
    #[diesel(sql_type = Nullable<Text>)]
    pub description: Option<String>,
    /// The metadata, as JSON.
    #[diesel(sql_type = Nullable<Text>)]
    pub metadata: Option<String>,
    /// The transaction that it reverses.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub reverses: Option<Uuid>,
    /// The account's currency. None if `is_known` was set.
    #[diesel(sql_type = Nullable<Text>)]
    pub currency: Option<String>,
    /// Whether the transaction has an assessment. False if `is_known` was set.
    #[diesel(sql_type = Bool)]
    pub is_assessed: bool,
    /// Whether the transaction before it is assessed. True for the first one of an account, or if `is_known` was set.
    #[diesel(sql_type = Bool)]
    pub follows_assessed: bool,
}

/// A transaction whose predecessor in its account has neither an assessment nor a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct SequenceGap {
    /// The account.
    #[diesel(sql_type = Text)]
    pub account_id: String,
    /// The transaction's number in the account.
    #[diesel(sql_type = BigInt)]
    pub account_seq: i64,
}

/// A transaction of an account's history.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct EarlierRow {
    /// The account's position in the arguments, from 1.
    #[diesel(sql_type = BigInt)]
    pub ordinal: i64,
    /// The transaction's number in the account.
    #[diesel(sql_type = BigInt)]
    pub account_seq: i64,
    /// The amount in minor units, negative for a debit.
    #[diesel(sql_type = BigInt)]
    pub amount: i64,
    /// When it was created.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// The counterparty.
    #[diesel(sql_type = Nullable<Text>)]
    pub counterparty: Option<String>,
    /// The metadata, as JSON.
    #[diesel(sql_type = Nullable<Text>)]
    pub metadata: Option<String>,
}

/// Returns the ledger's rows under these pairs of account and `account_seq`. Pairs that the ledger does not hold are
/// missing from the result.
///
/// `is_known` says that the caller already knows the account and its history. Its currency and assessment are then not
/// looked up, which saves half of the work.
pub async fn ledger_rows(
    connection: &mut Connection,
    account_ids: &[&str],
    account_seqs: &[i64],
    is_known: &[bool],
) -> Result<Vec<LedgerRow>, RepositoryError> {
    let rows = statement(include_str!("ledger_rows.sql"))
        .bind::<Array<Text>, _>(account_ids)
        .bind::<Array<BigInt>, _>(account_seqs)
        .bind::<Array<Bool>, _>(is_known)
        .get_results(connection)
        .await?;
    Ok(rows)
}

/// Returns those of the given transactions whose predecessor has no assessment and no dead letter of `group` or of the
/// relay.
pub async fn sequence_gaps(
    connection: &mut Connection,
    group: &str,
    suspected: &[SequenceGap],
) -> Result<Vec<SequenceGap>, RepositoryError> {
    let account_ids: Vec<&str> = suspected.iter().map(|gap| gap.account_id.as_str()).collect();
    let account_seqs: Vec<i64> = suspected.iter().map(|gap| gap.account_seq).collect();
    let gaps = statement(include_str!("sequence_gaps.sql"))
        .bind::<Array<Text>, _>(account_ids)
        .bind::<Array<BigInt>, _>(account_seqs)
        .bind::<Text, _>(group)
        .get_results(connection)
        .await?;
    Ok(gaps)
}

/// Calls `take` with each account's rows before its `before_seq`, at most `rows_max` numbers back. The order is not
/// defined. The rows are streamed, so no list of them is held in memory.
pub async fn each_earlier_row(
    connection: &mut Connection,
    account_ids: &[&str],
    before_seqs: &[i64],
    rows_max: i64,
    mut take: impl FnMut(EarlierRow),
) -> Result<(), RepositoryError> {
    let mut rows = statement(include_str!("earlier_rows.sql"))
        .bind::<Array<Text>, _>(account_ids)
        .bind::<Array<BigInt>, _>(before_seqs)
        .bind::<BigInt, _>(rows_max)
        .load_stream::<EarlierRow>(connection)
        .await?;
    while let Some(row) = rows.try_next().await? {
        take(row);
    }
    Ok(())
}
