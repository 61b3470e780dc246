//! Reading the ledger: rows by id and by idempotency key.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{Array, BigInt, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{Bind, Connection, RepositoryError, statement};
use crate::domain::{AccountId, Amount, Currency, Direction, IdempotencyKey, Metadata, Posting, Transaction};

/// A ledger row as PostgreSQL holds it, with its account's currency.
#[derive(QueryableByName, Debug)]
pub(super) struct TransactionRow {
    #[diesel(sql_type = Text)]
    account_id: String,
    #[diesel(sql_type = Text)]
    currency: String,
    #[diesel(sql_type = BigInt)]
    account_seq: i64,
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = BigInt)]
    amount: i64,
    #[diesel(sql_type = BigInt)]
    balance_after: i64,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    reverses: Option<Uuid>,
    #[diesel(sql_type = Text)]
    idempotency_key: String,
    #[diesel(sql_type = Nullable<Text>)]
    counterparty: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    description: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    metadata: Option<String>,
}

impl TransactionRow {
    pub(super) fn into_transaction(self) -> Result<Transaction, RepositoryError> {
        let corrupt = |what: &'static str, detail: String| RepositoryError::Corrupt { what, detail };
        let currency =
            Currency::parse(&self.currency).map_err(|error| corrupt("currency", error.to_string()))?;
        let amount = Amount::from_minor(self.amount.saturating_abs())
            .map_err(|error| corrupt("amount", error.to_string()))?;
        let posting = Posting {
            account_id: AccountId::parse(&self.account_id)
                .map_err(|error| corrupt("account_id", error.to_string()))?,
            idempotency_key: IdempotencyKey::from_ledger(self.idempotency_key),
            direction: Direction::of(self.amount),
            amount,
            currency,
            counterparty: self.counterparty.map(Into::into),
            description: self.description.map(Into::into),
            metadata: self.metadata.map(Metadata::from_canonical),
            reverses: self.reverses,
            created_at: None,
        };
        Ok(Transaction {
            id: self.id,
            posting: Arc::new(posting),
            account_seq: self.account_seq,
            balance_after: self.balance_after,
            created_at: self.created_at,
        })
    }
}

/// The risk side of a transaction, as far as it is known.
#[derive(QueryableByName, Debug, Clone)]
pub struct RiskSummary {
    /// 0–100.
    #[diesel(sql_type = SmallInt)]
    pub risk_score: i16,
    /// `low`, `medium` or `high`.
    #[diesel(sql_type = Text)]
    pub risk_level: String,
    /// JSON array of `{rule, score, reason}`.
    #[diesel(sql_type = Text)]
    pub reasons: String,
    /// Of the same shape: what rules that are tried on real traffic would have said.
    #[diesel(sql_type = Text)]
    pub shadow_reasons: String,
    /// Content hash of the rules.
    #[diesel(sql_type = Text)]
    pub ruleset: String,
    /// When it was scored.
    #[diesel(sql_type = Timestamptz)]
    pub assessed_at: DateTime<Utc>,
}

/// The row with that id, or None.
pub async fn find(connection: &mut Connection, id: Uuid) -> Result<Option<Transaction>, RepositoryError> {
    let row = statement(
        "SELECT t.account_id, a.currency, t.account_seq, t.id, t.amount, t.balance_after, t.created_at, t.reverses,
                t.idempotency_key, t.counterparty, t.description, t.metadata::text AS metadata
         FROM transactions t JOIN accounts a USING (account_id) WHERE t.id = ?",
    )
    .bind::<SqlUuid, _>(id)
    .get_result::<TransactionRow>(connection)
    .await
    .optional()?;
    row.map(TransactionRow::into_transaction).transpose()
}

/// The assessment of a row, or None while it is pending.
pub async fn find_risk(
    connection: &mut Connection,
    account_id: &AccountId,
    account_seq: i64,
) -> Result<Option<RiskSummary>, RepositoryError> {
    let found = statement(
        "SELECT risk_score, risk_level, reasons::text AS reasons, shadow_reasons::text AS shadow_reasons, ruleset, assessed_at
         FROM risk_assessments WHERE account_id = ? AND account_seq = ?",
    )
    .bind::<Text, _>(account_id.as_str())
    .bind::<BigInt, _>(account_seq)
    .get_result::<RiskSummary>(connection)
    .await
    .optional()?;
    Ok(found)
}

/// The rows of two tables under wanted (account, key) pairs.
macro_rules! rows_by_key {
    ($transactions:literal, $accounts:literal) => {
        concat!(
            "SELECT t.account_id, a.currency, t.account_seq, t.id, t.amount, t.balance_after, t.created_at, t.reverses,
                    t.idempotency_key, t.counterparty, t.description, t.metadata::text AS metadata
             FROM unnest(?, ?) AS wanted (account_id, idempotency_key)
             JOIN ",
            $transactions,
            " t USING (account_id, idempotency_key) JOIN ",
            $accounts,
            " a USING (account_id)"
        )
    };
}

/// The rows that already stand under these (account, key) pairs. The accounts must be locked by an earlier statement
/// of the same transaction: then no such row can appear later.
pub(super) async fn existing(
    connection: &mut Connection,
    account_ids: &[&str],
    keys: &[&str],
) -> Result<Vec<Transaction>, RepositoryError> {
    by_key(connection, rows_by_key!("transactions", "accounts"), account_ids, keys).await
}

/// The rows that a dry run would have written under these (account, key) pairs; see `repository::rehearsals`.
pub(super) async fn rehearsed(
    connection: &mut Connection,
    account_ids: &[&str],
    keys: &[&str],
) -> Result<Vec<Transaction>, RepositoryError> {
    by_key(connection, rows_by_key!("rehearsed_transactions", "rehearsed_accounts"), account_ids, keys).await
}

async fn by_key(
    connection: &mut Connection,
    sql: &'static str,
    account_ids: &[&str],
    keys: &[&str],
) -> Result<Vec<Transaction>, RepositoryError> {
    let rows = statement(sql)
        .bind::<Array<Text>, _>(account_ids)
        .bind::<Array<Text>, _>(keys)
        .load::<TransactionRow>(connection)
        .await?;
    rows.into_iter().map(TransactionRow::into_transaction).collect()
}
