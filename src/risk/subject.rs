//! The transaction to score.

use chrono::{DateTime, Utc};
use serde_json::Value as Json;

use crate::domain::{Currency, Direction};

/// A transaction to score, borrowed from an event or a ledger row.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The account.
    pub account_id: &'a str,
    /// The transaction's number in the account: 1, 2, 3 …
    pub account_seq: i64,
    /// Minor units: positive for a credit, negative for a debit.
    pub amount: i64,
    /// The currency of the account.
    pub currency: Currency,
    /// Minor units.
    pub balance_after: i64,
    /// The event time.
    pub created_at: DateTime<Utc>,
    /// The counterparty.
    pub counterparty: Option<&'a str>,
    /// The description, a free text.
    pub description: Option<&'a str>,
    /// The metadata, a flat object.
    pub metadata: Option<&'a serde_json::Map<String, Json>>,
    /// Whether it reverses another transaction.
    pub is_reversal: bool,
}

impl Subject<'_> {
    /// Returns the direction in which the money moves.
    pub fn direction(&self) -> Direction {
        Direction::of(self.amount)
    }
}

/// Returns a metadata value as text: a string unchanged, any other value as JSON.
pub(super) fn scalar_text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}
