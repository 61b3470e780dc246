//! A row of `transactions` as PostgreSQL returns it, and its conversion to the domain's type.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use crate::{
    domain::{AccountId, Amount, Currency, Direction, IdempotencyKey, Metadata, Posting, Transaction},
    repository::RepositoryError,
};

/// A ledger row as PostgreSQL holds it, with its account's currency.
#[derive(QueryableByName, Debug)]
pub(in crate::repository) struct TransactionRow {
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
    pub(in crate::repository) fn into_transaction(self) -> Result<Transaction, RepositoryError> {
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
