//! The event `TransactionCreated.v1`, published for each transaction in `account_seq` order of its account.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{
    AccountId, Amount, Currency, Direction, IdempotencyKey, Metadata, Posting, Transaction, format_minor,
    parse_minor,
};

/// The CloudEvents type.
pub const TRANSACTION_CREATED: &str = "TransactionCreated.v1";

/// The JSON of the event. The event id is the transaction id, because a transaction has exactly one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionCreated {
    /// The id of the event, equal to `transaction_id` and to the header `ce_id`.
    pub event_id: Uuid,
    /// The id of the transaction.
    pub transaction_id: Uuid,
    /// The account, which is also the record key.
    pub account_id: String,
    /// The number of the transaction in its account: 1, 2, 3 …
    pub account_seq: i64,
    /// `credit` or `debit`.
    pub direction: String,
    /// A positive decimal.
    pub amount: String,
    /// An ISO 4217 code.
    pub currency: String,
    /// A decimal.
    pub balance_after: String,
    /// The other party, as the client named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counterparty: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A flat object of strings, booleans and whole numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
    /// The reversed transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverses: Option<Uuid>,
    /// The time of the transaction, in UTC with microseconds.
    #[serde(serialize_with = "super::serialize_moment")]
    pub created_at: DateTime<Utc>,
}

/// Why a value is no valid event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The value is missing or is no JSON of this shape.
    #[error("the value is no {TRANSACTION_CREATED}")]
    Shape(#[source] serde_json::Error),
    /// The content of a field is invalid.
    #[error("{field} is not valid: {reason}")]
    Field {
        /// The name of the field.
        field: &'static str,
        /// Why it is invalid.
        reason: String,
    },
}

/// The event with borrowed fields, which the write path serialises without copies.
#[derive(Serialize)]
struct Outgoing<'a> {
    event_id: Uuid,
    transaction_id: Uuid,
    account_id: &'a str,
    account_seq: i64,
    direction: &'static str,
    amount: String,
    currency: &'static str,
    balance_after: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    counterparty: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a serde_json::value::RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reverses: Option<Uuid>,
    #[serde(serialize_with = "super::serialize_moment")]
    created_at: DateTime<Utc>,
}

/// Returns the JSON of the event for a transaction that is about to be written.
pub fn encode_transaction_created(row: &Transaction) -> Result<Vec<u8>, serde_json::Error> {
    let posting = &row.posting;
    let metadata =
        posting.metadata.as_ref().map(|metadata| serde_json::from_str(metadata.as_json())).transpose()?;
    serde_json::to_vec(&Outgoing {
        event_id: row.id,
        transaction_id: row.id,
        account_id: posting.account_id.as_str(),
        account_seq: row.account_seq,
        direction: posting.direction.as_str(),
        amount: format_minor(posting.amount.minor(), posting.currency),
        currency: posting.currency.code(),
        balance_after: format_minor(row.balance_after, posting.currency),
        counterparty: posting.counterparty.as_deref(),
        description: posting.description.as_deref(),
        metadata,
        reverses: posting.reverses,
        created_at: row.created_at,
    })
}

impl TransactionCreated {
    /// Parses the value of a record.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        serde_json::from_slice(value).map_err(DecodeError::Shape)
    }

    /// Returns the transaction of the event. The event does not contain the idempotency key, which is a secret of the
    /// client; the event id takes its place.
    pub fn to_transaction(&self) -> Result<Transaction, DecodeError> {
        let field = |field: &'static str| move |reason: String| DecodeError::Field { field, reason };
        let currency = Currency::parse(&self.currency).map_err(|e| field("currency")(e.to_string()))?;
        let metadata =
            self.metadata.as_ref().map(|map| Metadata::from_json(&map.clone().into_iter().collect()));
        let posting = Posting {
            account_id: AccountId::parse(&self.account_id).map_err(|e| field("account_id")(e.to_string()))?,
            idempotency_key: IdempotencyKey::parse(&self.event_id.to_string())
                .map_err(|e| field("event_id")(e.to_string()))?,
            direction: Direction::parse(&self.direction).map_err(|e| field("direction")(e.to_string()))?,
            amount: Amount::parse(&self.amount, currency).map_err(|e| field("amount")(e.to_string()))?,
            currency,
            counterparty: self.counterparty.as_deref().map(Into::into),
            description: self.description.as_deref().map(Into::into),
            metadata: metadata.transpose().map_err(|e| field("metadata")(e.to_string()))?,
            reverses: self.reverses,
            created_at: None,
        };
        Ok(Transaction {
            id: self.transaction_id,
            balance_after: parse_minor(&self.balance_after, currency)
                .map_err(|e| field("balance_after")(e.to_string()))?,
            posting: posting.into(),
            account_seq: self.account_seq,
            created_at: self.created_at,
        })
    }
}
