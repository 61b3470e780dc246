//! Reading the ledger: rows by id, by idempotency key, and pages of history.

use std::sync::Arc;

use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{Array, BigInt, Nullable, Numeric, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{Bind, Connection, RepositoryError, accounts::seq_range, statement};
use crate::domain::{
    AccountId, Amount, Currency, Direction, IdempotencyKey, Metadata, Posting, Transaction,
    transaction_id_floor,
};

/// Filters that no index serves: they are applied row by row to what the keyset gives, each only if it is asked for.
/// Four binds: the amount's sign or 0, least and greatest amount or null, risk level or null.
macro_rules! residual_filters {
    () => {
        " AND (SELECT (f.sign = 0 OR sign(t.amount) = f.sign)
                  AND (f.least IS NULL OR abs(t.amount) >= f.least * (SELECT 10::numeric ^ c.decimals FROM currencies c WHERE c.code = a.currency))
                  AND (f.greatest IS NULL OR abs(t.amount) <= f.greatest * (SELECT 10::numeric ^ c.decimals FROM currencies c WHERE c.code = a.currency))
                  AND (f.level IS NULL OR f.level = coalesce((SELECT r.risk_level FROM risk_assessments r
                         WHERE r.account_id = t.account_id AND r.account_seq = t.account_seq), 'pending'))
               FROM (SELECT ?::smallint, ?::numeric, ?::numeric, ?::text) AS f (sign, least, greatest, level))"
    };
}

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
            direction: if self.amount < 0 { Direction::Debit } else { Direction::Credit },
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
        "SELECT risk_score, risk_level, reasons::text AS reasons, ruleset, assessed_at
         FROM risk_assessments WHERE account_id = ? AND account_seq = ?",
    )
    .bind::<Text, _>(account_id.as_str())
    .bind::<BigInt, _>(account_seq)
    .get_result::<RiskSummary>(connection)
    .await
    .optional()?;
    Ok(found)
}

/// The rows that already stand under these (account, key) pairs. The accounts must be locked by an earlier statement
/// of the same transaction: then no such row can appear later.
pub(super) async fn existing(
    connection: &mut Connection,
    account_ids: &[&str],
    keys: &[&str],
) -> Result<Vec<Transaction>, RepositoryError> {
    let rows = statement(
        "SELECT t.account_id, a.currency, t.account_seq, t.id, t.amount, t.balance_after, t.created_at, t.reverses,
                t.idempotency_key, t.counterparty, t.description, t.metadata::text AS metadata
         FROM unnest(?, ?) AS wanted (account_id, idempotency_key)
         JOIN transactions t USING (account_id, idempotency_key)
         JOIN accounts a USING (account_id)",
    )
    .bind::<Array<Text>, _>(account_ids)
    .bind::<Array<Text>, _>(keys)
    .load::<TransactionRow>(connection)
    .await?;
    rows.into_iter().map(TransactionRow::into_transaction).collect()
}

/// What a page of history is asked for; newest first.
#[derive(Debug, Clone)]
pub struct HistoryFilter {
    /// Of one account only.
    pub account_id: Option<AccountId>,
    /// Created at or after.
    pub from: Option<DateTime<Utc>>,
    /// Created before.
    pub to: Option<DateTime<Utc>>,
    /// Credits or debits only.
    pub direction: Option<Direction>,
    /// At least this much, in the currency's own unit.
    pub min_amount: Option<BigDecimal>,
    /// At most this much, in the currency's own unit.
    pub max_amount: Option<BigDecimal>,
    /// `low`, `medium`, `high` or `pending`.
    pub risk_level: Option<String>,
    /// Rows wanted; one more is read, to know whether there is another page.
    pub limit: i64,
    /// With an account: only rows before this sequence number.
    pub before_seq: Option<i64>,
    /// Without an account: only rows before this id.
    pub before_id: Option<Uuid>,
}

/// A page of history: of one account by its sequence numbers, of the whole ledger by id, which sorts by time. The
/// currency is probed for each row (OFFSET 0 keeps it so): with a join, the plan for parameters that PostgreSQL does
/// not know read the whole range and hashed it for the sake of fifty rows.
pub async fn history(
    connection: &mut Connection,
    filter: &HistoryFilter,
) -> Result<Vec<Transaction>, RepositoryError> {
    let rows = match &filter.account_id {
        Some(account_id) => account_history(connection, account_id, filter).await?,
        None => ledger_history(connection, filter).await?,
    };
    rows.into_iter().map(TransactionRow::into_transaction).collect()
}

async fn account_history(
    connection: &mut Connection,
    account_id: &AccountId,
    filter: &HistoryFilter,
) -> Result<Vec<TransactionRow>, RepositoryError> {
    let (from_seq, to_seq) = seq_range(connection, account_id, filter.from, filter.to).await?;
    let rows = statement(concat!(
        "SELECT t.account_id, a.currency, t.account_seq, t.id, t.amount, t.balance_after, t.created_at, t.reverses,
                t.idempotency_key, t.counterparty, t.description, t.metadata::text AS metadata
         FROM transactions t CROSS JOIN LATERAL (
           SELECT currency FROM accounts WHERE accounts.account_id = t.account_id OFFSET 0) AS a
         WHERE t.account_id = ? AND t.account_seq >= ? AND t.account_seq < ?",
        residual_filters!(),
        " ORDER BY t.account_seq DESC LIMIT ?"
    ))
    .bind::<Text, _>(account_id.as_str())
    .bind::<BigInt, _>(from_seq)
    .bind::<BigInt, _>(filter.before_seq.unwrap_or(i64::MAX).min(to_seq))
    .bind::<SmallInt, _>(sign(filter.direction))
    .bind::<Nullable<Numeric>, _>(filter.min_amount.clone())
    .bind::<Nullable<Numeric>, _>(filter.max_amount.clone())
    .bind::<Nullable<Text>, _>(filter.risk_level.as_deref())
    .bind::<BigInt, _>(filter.limit + 1)
    .load(connection)
    .await?;
    Ok(rows)
}

async fn ledger_history(
    connection: &mut Connection,
    filter: &HistoryFilter,
) -> Result<Vec<TransactionRow>, RepositoryError> {
    let to_id = filter.to.map_or(Uuid::max(), transaction_id_floor);
    let rows = statement(concat!(
        "SELECT t.account_id, a.currency, t.account_seq, t.id, t.amount, t.balance_after, t.created_at, t.reverses,
                t.idempotency_key, t.counterparty, t.description, t.metadata::text AS metadata
         FROM transactions t CROSS JOIN LATERAL (
           SELECT currency FROM accounts WHERE accounts.account_id = t.account_id OFFSET 0) AS a
         WHERE t.id >= ? AND t.id < ?",
        residual_filters!(),
        " ORDER BY t.id DESC LIMIT ?"
    ))
    .bind::<SqlUuid, _>(filter.from.map_or(Uuid::nil(), transaction_id_floor))
    .bind::<SqlUuid, _>(filter.before_id.unwrap_or(Uuid::max()).min(to_id))
    .bind::<SmallInt, _>(sign(filter.direction))
    .bind::<Nullable<Numeric>, _>(filter.min_amount.clone())
    .bind::<Nullable<Numeric>, _>(filter.max_amount.clone())
    .bind::<Nullable<Text>, _>(filter.risk_level.as_deref())
    .bind::<BigInt, _>(filter.limit + 1)
    .load(connection)
    .await?;
    Ok(rows)
}

fn sign(direction: Option<Direction>) -> i16 {
    match direction {
        Some(Direction::Credit) => 1,
        Some(Direction::Debit) => -1,
        None => 0,
    }
}
