//! The ledger as scoring needs it: is this event one of its rows, and what came before. Each question is one query for
//! a whole batch, answered by one probe of the primary key per event or account.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use futures::TryStreamExt;
use uuid::Uuid;

use crate::repository::{Bind, Connection, RepositoryError, statement};

/// The ledger's own row at an event's place.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct LedgerRow {
    /// Place in the question, from 1.
    #[diesel(sql_type = BigInt)]
    pub ordinal: i64,
    /// The transaction.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// Minor units, negative for a debit.
    #[diesel(sql_type = BigInt)]
    pub amount: i64,
    /// Minor units.
    #[diesel(sql_type = BigInt)]
    pub balance_after: i64,
    /// When it was created.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// The other side.
    #[diesel(sql_type = Nullable<Text>)]
    pub counterparty: Option<String>,
    /// Free text.
    #[diesel(sql_type = Nullable<Text>)]
    pub description: Option<String>,
    /// JSON.
    #[diesel(sql_type = Nullable<Text>)]
    pub metadata: Option<String>,
    /// The transaction that it reverses.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub reverses: Option<Uuid>,
    /// The account's. None for an account that was told to be known.
    #[diesel(sql_type = Nullable<Text>)]
    pub currency: Option<String>,
    /// Whether it has its assessment already. False for one of an account that was told to be known.
    #[diesel(sql_type = Bool)]
    pub is_assessed: bool,
}

/// An earlier row of an account.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct EarlierRow {
    /// Place of the account in the question, from 1.
    #[diesel(sql_type = BigInt)]
    pub ordinal: i64,
    /// Its number.
    #[diesel(sql_type = BigInt)]
    pub account_seq: i64,
    /// Minor units, negative for a debit.
    #[diesel(sql_type = BigInt)]
    pub amount: i64,
    /// When it was created.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// The other side.
    #[diesel(sql_type = Nullable<Text>)]
    pub counterparty: Option<String>,
    /// JSON.
    #[diesel(sql_type = Nullable<Text>)]
    pub metadata: Option<String>,
}

/// The ledger's rows at these places; places that the ledger does not have are missing from the answer. Where `known`
/// says that the caller knows the account and what came before, neither account nor assessment is looked up, which is
/// half of the work.
pub async fn ledger_rows(
    connection: &mut Connection,
    account_ids: &[&str],
    account_seqs: &[i64],
    known: &[bool],
) -> Result<Vec<LedgerRow>, RepositoryError> {
    let rows = statement(include_str!("ledger_rows.sql"))
        .bind::<Array<Text>, _>(account_ids)
        .bind::<Array<BigInt>, _>(account_seqs)
        .bind::<Array<Bool>, _>(known)
        .get_results(connection)
        .await?;
    Ok(rows)
}

/// For each account its rows before `before_seq`, at most `rows_max` numbers back. In no order; none is kept here.
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
