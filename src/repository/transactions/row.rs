//! A row of `transactions`, and its conversion to the domain's type.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    pg::Pg,
    prelude::*,
    sql_types::{Nullable, Text},
};
use uuid::Uuid;

use crate::{
    domain::{AccountId, Amount, Currency, Direction, IdempotencyKey, Metadata, Posting, Transaction},
    repository::{
        RepositoryError,
        schema::{accounts, transactions},
    },
};

/// A row of `transactions` as PostgreSQL returns it, with its account's currency.
#[derive(Queryable, Selectable, QueryableByName, Debug)]
#[diesel(table_name = transactions, check_for_backend(Pg))]
pub(in crate::repository) struct TransactionRow {
    account_id: String,
    #[diesel(sql_type = Text, select_expression = account_currency())]
    currency: String,
    account_seq: i64,
    id: Uuid,
    amount: i64,
    balance_after: i64,
    created_at: DateTime<Utc>,
    reverses: Option<Uuid>,
    idempotency_key: String,
    counterparty: Option<String>,
    description: Option<String>,
    #[diesel(sql_type = Nullable<Text>, select_expression = transactions::metadata.cast::<Nullable<Text>>())]
    metadata: Option<String>,
}

/// Returns a subquery for the currency of a row's account. PostgreSQL runs it for each returned row; a join could be
/// planned as a hash join over the whole range of a page.
#[diesel::dsl::auto_type]
fn account_currency() -> _ {
    let currency = accounts::table
        .filter(accounts::account_id.eq(transactions::account_id))
        .select(accounts::currency)
        .single_value();
    currency.assume_not_null()
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
