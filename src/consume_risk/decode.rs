//! Decodes a record into an event that can be scored, or returns why it cannot be.

use uuid::Uuid;

use crate::{
    broker::FetchedRecord,
    domain::{AccountId, Amount, Currency, Direction, parse_minor},
    event::{TRANSACTION_CREATED, TransactionCreated},
    risk::Subject,
};

/// Why a record cannot be handled. The cause lies in the record or in the rules, so each attempt fails the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordFault {
    /// The stage that failed: `decode`, `ledger`, `score`, `process`.
    pub stage: &'static str,
    /// The reason as a label for metrics and filters.
    pub reason: &'static str,
    /// The reason as text.
    pub error: String,
}

/// A decoded `TransactionCreated`.
#[derive(Debug)]
pub(super) struct Event {
    pub created: TransactionCreated,
    /// Minor units, negative for a debit.
    pub amount: i64,
    pub currency: Currency,
    /// Minor units.
    pub balance_after: i64,
    /// The trace context of the request that created the transaction, if it is valid.
    pub traceparent: Option<String>,
}

impl Event {
    /// Returns the transaction as the rules see it.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            account_id: &self.created.account_id,
            account_seq: self.created.account_seq,
            amount: self.amount,
            currency: self.currency,
            balance_after: self.balance_after,
            created_at: self.created.created_at,
            counterparty: self.created.counterparty.as_deref(),
            description: self.created.description.as_deref(),
            metadata: self.created.metadata.as_ref(),
            is_reversal: self.created.reverses.is_some(),
        }
    }

    /// The account and the `account_seq`: two deliveries with the same identity are one event.
    pub fn identity(&self) -> (&str, i64) {
        (&self.created.account_id, self.created.account_seq)
    }
}

fn fault(reason: &'static str, error: impl Into<String>) -> RecordFault {
    RecordFault { stage: "decode", reason, error: error.into() }
}

/// Decodes a record of `transactions.v1`.
pub(super) fn decode(record: &FetchedRecord) -> Result<Event, RecordFault> {
    match record.headers.attribute("ce_type") {
        Some(TRANSACTION_CREATED) => {}
        Some(other) => {
            let error = format!("unknown event type {other:?}; this version handles {TRANSACTION_CREATED}");
            return Err(fault("unknown_type", error));
        }
        None => return Err(fault("unknown_type", "the header ce_type is missing")),
    }
    let Some(key) = &record.key else {
        return Err(fault("no_key", "the record has no key; the key must be the account id"));
    };
    let Some(value) = &record.value else {
        return Err(fault("undecodable", "the record has no value"));
    };
    let created =
        TransactionCreated::decode(value).map_err(|error| fault("undecodable", describe(&error)))?;
    if created.account_id.as_bytes() != &key[..] {
        return Err(fault("wrong_key", "the key differs from the account id of the event"));
    }
    if created.event_id != created.transaction_id {
        return Err(fault("undecodable", "event_id and transaction_id differ"));
    }
    let traceparent = record.headers.attribute("traceparent").filter(|text| is_traceparent(text));
    checked(created, traceparent.map(str::to_owned)).map_err(|error| fault("undecodable", error))
}

fn checked(created: TransactionCreated, traceparent: Option<String>) -> Result<Event, String> {
    AccountId::parse(&created.account_id).map_err(|error| format!("account_id {error}"))?;
    let currency = Currency::parse(&created.currency).map_err(|error| format!("currency {error}"))?;
    let direction = Direction::parse(&created.direction).map_err(|error| format!("direction {error}"))?;
    let amount = Amount::parse(&created.amount, currency).map_err(|error| format!("amount {error}"))?.minor();
    let balance_after =
        parse_minor(&created.balance_after, currency).map_err(|error| format!("balance_after {error}"))?;
    let amount = if direction == Direction::Debit { -amount } else { amount };
    Ok(Event { created, amount, currency, balance_after, traceparent })
}

/// Returns the event's id from the headers, which may be readable although the value is not.
pub(super) fn event_id(record: &FetchedRecord) -> Option<Uuid> {
    record.headers.attribute("ce_id")?.parse().ok()
}

/// Returns whether the text has the W3C form: version, trace, span and flags.
fn is_traceparent(text: &str) -> bool {
    text.len() == 55 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// Returns the text of an error with its causes.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::event::cloud_event_headers;

    fn record(json: serde_json::Value) -> FetchedRecord {
        FetchedRecord {
            offset: 0,
            key: Some(b"acct-1"[..].into()),
            value: Some(json.to_string().into()),
            headers: cloud_event_headers(Uuid::nil(), TRANSACTION_CREATED, Utc::now(), None),
            timestamp: Utc::now(),
            leader_epoch: None,
        }
    }

    fn valid() -> serde_json::Value {
        serde_json::json!({
            "event_id": Uuid::nil(), "transaction_id": Uuid::nil(), "account_id": "acct-1", "account_seq": 1,
            "direction": "debit", "amount": "1.50", "currency": "EUR", "balance_after": "-1.50",
            "created_at": "2026-01-01T00:00:00Z"
        })
    }

    #[test]
    fn a_valid_record_is_an_event() {
        let event = decode(&record(valid())).expect("decoded");
        assert_eq!((event.amount, event.balance_after, event.identity()), (-150, -150, ("acct-1", 1)));
    }

    #[test]
    fn each_defect_has_its_reason() {
        let with = |field: &str, value: serde_json::Value| {
            let mut json = valid();
            json[field] = value;
            record(json)
        };
        let mut no_key = record(valid());
        no_key.key = None;
        let mut other_version = record(valid());
        other_version.headers = [("ce_type", "TransactionCreated.v2")].into();
        let mut no_value = record(valid());
        no_value.value = None;
        for (record, reason) in [
            (no_key, "no_key"),
            (other_version, "unknown_type"),
            (no_value, "undecodable"),
            (with("account_id", "acct-2".into()), "wrong_key"),
            (with("amount", 1.5.into()), "undecodable"),
            (with("amount", "1.505".into()), "undecodable"),
            (with("currency", "XXX".into()), "undecodable"),
            (with("transaction_id", Uuid::max().to_string().into()), "undecodable"),
        ] {
            assert_eq!(decode(&record).expect_err(reason).reason, reason);
        }
    }
}
