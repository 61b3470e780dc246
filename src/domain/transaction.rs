//! Transactions: the validated request ([`Posting`]) and the immutable row of the ledger ([`Transaction`]).

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{AccountId, Amount, Currency};

/// The longest `counterparty`, in characters.
pub const COUNTERPARTY_LENGTH_MAX: usize = 128;
/// The longest `description`, in characters.
pub const DESCRIPTION_LENGTH_MAX: usize = 500;
/// The most entries of `metadata`.
pub const METADATA_ENTRIES_MAX: usize = 20;
/// The largest `metadata` as canonical JSON, in bytes.
pub const METADATA_BYTES_MAX: usize = 2048;
const IDEMPOTENCY_KEY_LENGTH_MAX: usize = 255;

/// Why the value of a field is refused. The client sees the text with the field's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FieldError(pub String);

/// The direction of a transaction, seen from the account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Increases the balance.
    Credit,
    /// Decreases the balance.
    Debit,
}

impl Direction {
    /// Parses `credit` or `debit`.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        match text {
            "credit" => Ok(Self::Credit),
            "debit" => Ok(Self::Debit),
            _ => Err(FieldError("must be \"credit\" or \"debit\"".into())),
        }
    }

    /// Returns the direction of a signed amount: negative is a debit.
    pub fn of(amount: i64) -> Self {
        if amount < 0 { Self::Debit } else { Self::Credit }
    }

    /// Returns `credit` or `debit`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credit => "credit",
            Self::Debit => "debit",
        }
    }

    /// Returns the other direction, which a reversal has.
    pub fn opposite(self) -> Self {
        match self {
            Self::Credit => Self::Debit,
            Self::Debit => Self::Credit,
        }
    }
}

/// The client's key for one request on one account: 1–255 visible ASCII characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    /// Parses a bare key, or a quoted string of RFC 8941. Both forms are the same key.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let bare = match text.strip_prefix('"') {
            Some(rest) => rest.strip_suffix('"').filter(|inner| !inner.contains('"')),
            None => Some(text),
        };
        let in_bounds = |key: &&str| {
            (1..=IDEMPOTENCY_KEY_LENGTH_MAX).contains(&key.len())
                && key.bytes().all(|byte| byte.is_ascii_graphic())
        };
        bare.filter(in_bounds).map(|key| Self(key.into())).ok_or_else(|| {
            FieldError("must be 1 to 255 visible ASCII characters, bare or in double quotes".into())
        })
    }

    /// Returns the key of a transaction's only reversal. It contains a blank, which no client's key can, so no client can
    /// use it first.
    pub fn of_reversal(reversed: Uuid) -> Self {
        Self(format!("reversal {reversed}").into())
    }

    /// Wraps a key that was read from the ledger.
    pub fn from_ledger(key: String) -> Self {
        Self(key.into())
    }

    /// Returns the bare key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks a free text: not empty, at most `length_max` characters, no U+0000 (PostgreSQL cannot store it).
pub fn bounded_text(text: &str, length_max: usize) -> Result<Box<str>, FieldError> {
    if text.is_empty() {
        return Err(FieldError("must not be empty; leave it out instead".into()));
    }
    if text.chars().count() > length_max {
        return Err(FieldError(format!("must be at most {length_max} characters")));
    }
    if text.contains('\0') {
        return Err(FieldError("must not contain U+0000".into()));
    }
    Ok(text.into())
}

/// A flat object of short scalars, stored as canonical JSON: keys sorted, no white space. Two objects are equal if their
/// canonical texts are equal, so the order of fields and white space do not matter for idempotency.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metadata(Box<str>);

impl Metadata {
    /// Checks an object and makes its canonical text. Values are strings, booleans or whole numbers. Fractions are refused,
    /// because some reader would treat them as floats.
    pub fn from_json(entries: &BTreeMap<String, serde_json::Value>) -> Result<Self, FieldError> {
        if entries.len() > METADATA_ENTRIES_MAX {
            return Err(FieldError(format!("must have at most {METADATA_ENTRIES_MAX} entries")));
        }
        for (name, value) in entries {
            if name.is_empty() || name.contains('\0') {
                return Err(FieldError("names must not be empty or contain U+0000".into()));
            }
            match value {
                serde_json::Value::String(text) if !text.contains('\0') => {}
                serde_json::Value::Bool(_) => {}
                serde_json::Value::Number(number) if number.is_i64() => {}
                serde_json::Value::String(_) => {
                    return Err(FieldError(format!("\"{name}\" must not contain U+0000")));
                }
                _ => {
                    return Err(FieldError(format!(
                        "\"{name}\" must be a string, a boolean or a whole number"
                    )));
                }
            }
        }
        let text = serde_json::to_string(entries).map_err(|error| FieldError(error.to_string()))?;
        if text.len() > METADATA_BYTES_MAX {
            return Err(FieldError(format!("must be at most {METADATA_BYTES_MAX} bytes as JSON")));
        }
        Ok(Self(text.into()))
    }

    /// Wraps a canonical text that was read from the ledger.
    pub fn from_canonical(text: String) -> Self {
        Self(text.into())
    }

    /// Returns the canonical JSON.
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

/// A validated request to create a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Posting {
    /// The account.
    pub account_id: AccountId,
    /// The client's key. It is unique per account for ever.
    pub idempotency_key: IdempotencyKey,
    /// Credit or debit.
    pub direction: Direction,
    /// Positive, in minor units of `currency`.
    pub amount: Amount,
    /// The account's currency. The first transaction of an account sets it.
    pub currency: Currency,
    /// The other party, in the client's words.
    pub counterparty: Option<Box<str>>,
    /// Free text.
    pub description: Option<Box<str>>,
    /// The client's own data.
    pub metadata: Option<Metadata>,
    /// The transaction that this one reverses.
    pub reverses: Option<Uuid>,
    /// The time in the system that it is imported from. None means now.
    pub created_at: Option<DateTime<Utc>>,
}

impl Posting {
    /// Returns the signed amount in minor units: negative for a debit.
    pub fn signed_minor(&self) -> i64 {
        match self.direction {
            Direction::Credit => self.amount.minor(),
            Direction::Debit => -self.amount.minor(),
        }
    }

    /// Returns the first field in which two requests with the same key differ, or None if they are equal. `created_at` is
    /// not compared here, because most requests have none: see [`super::decide`].
    pub fn differing_field(&self, other: &Self) -> Option<&'static str> {
        let differences = [
            ("direction", self.direction != other.direction),
            ("amount", self.amount != other.amount),
            ("currency", self.currency != other.currency),
            ("counterparty", self.counterparty != other.counterparty),
            ("description", self.description != other.description),
            ("metadata", self.metadata != other.metadata),
            ("reverses", self.reverses != other.reverses),
        ];
        differences.into_iter().find_map(|(field, differs)| differs.then_some(field))
    }
}

/// An immutable row of the ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// UUIDv7 made from `created_at` and `account_seq`.
    pub id: Uuid,
    /// The request.
    pub posting: Arc<Posting>,
    /// The sequence number in the account: 1, 2, 3 …
    pub account_seq: i64,
    /// The account's balance after this transaction, in minor units.
    pub balance_after: i64,
    /// The time of creation, in microseconds. Never earlier than that of the account's previous transaction.
    pub created_at: DateTime<Utc>,
}

/// Within one microsecond, the ids of an account's transactions sort by `account_seq` as long as no `account_seq` among
/// them, except for the first, is a multiple of this number.
pub const TRANSACTION_ID_SEQS: i64 = 1 << SEQ_BITS;
const SEQ_BITS: u32 = 12;
/// The bits of an id that are not used by time, version, variant and sequence number.
const RANDOM_BITS: u32 = 62 - SEQ_BITS;

/// Makes the id of a transaction, a UUIDv7 (RFC 9562):
///
/// | bits | content |
/// | --- | --- |
/// | 48 | `created_at` in milliseconds |
/// | 12 | the microseconds within the millisecond, in 4096ths (RFC 9562, section 6.2, method 3) |
/// | 12 | the low bits of `account_seq` |
/// | 50 | `random` |
///
/// So ids sort by `created_at` to the microsecond, and one index serves look-ups and time ranges. Ids of one account and
/// microsecond sort by `account_seq` between multiples of [`TRANSACTION_ID_SEQS`]. Moments before 1970 have no such id;
/// callers refuse them first.
pub fn transaction_id(created_at: DateTime<Utc>, account_seq: i64, random: u64) -> Uuid {
    let micros = created_at.timestamp_micros().max(0).unsigned_abs();
    let fraction = (micros % 1000) * 4096 / 1000;
    let high = ((micros / 1000) << 16) | 0x7000 | fraction;
    let seq = account_seq.rem_euclid(TRANSACTION_ID_SEQS).unsigned_abs();
    let low = 0x8000_0000_0000_0000 | (seq << RANDOM_BITS) | (random >> (u64::BITS - RANDOM_BITS));
    Uuid::from_u64_pair(high, low)
}

/// Returns the smallest id of a transaction created at or after `moment`.
pub fn transaction_id_floor(moment: DateTime<Utc>) -> Uuid {
    let with_variant = transaction_id(moment, 0, 0);
    let (high, _) = with_variant.as_u64_pair();
    Uuid::from_u64_pair(high, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quoted_and_bare_keys_are_the_same_key() {
        assert_eq!(IdempotencyKey::parse("\"abc\""), IdempotencyKey::parse("abc"));
        for text in ["", "\"\"", "\"abc", "abc def", "ä", "\"a\"b\"", &"k".repeat(256)] {
            assert!(IdempotencyKey::parse(text).is_err(), "{text:?}");
        }
        assert!(IdempotencyKey::parse(&"k".repeat(255)).is_ok());
        let reversal = IdempotencyKey::of_reversal(Uuid::nil());
        assert!(IdempotencyKey::parse(reversal.as_str()).is_err(), "no client can use it");
    }

    #[test]
    fn metadata_is_canonical_and_bounded() {
        let parse = |text: &str| Metadata::from_json(&serde_json::from_str(text).expect("object"));
        assert_eq!(parse(r#"{"b": 1, "a": "x"}"#), parse(r#"{"a":"x","b":1}"#));
        assert_eq!(parse(r#"{"b": true, "a": "x"}"#).expect("valid").as_json(), r#"{"a":"x","b":true}"#);
        for text in
            [r#"{"a":1.5}"#, r#"{"a":null}"#, r#"{"a":{}}"#, r#"{"a":[]}"#, r#"{"":1}"#, r#"{"a":"\u0000"}"#]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn ids_sort_by_creation_to_the_microsecond(
            a in 0_i64..4_000_000_000_000_000, gap in 1_i64..10_000,
            (m, r) in (1..i64::MAX, any::<u64>()), (n, s) in (1..i64::MAX, any::<u64>()),
        ) {
            let earlier = DateTime::from_timestamp_micros(a).expect("in range");
            let later = DateTime::from_timestamp_micros(a + gap).expect("in range");
            let (first, second) = (transaction_id(earlier, m, r), transaction_id(later, n, s));
            prop_assert!(first < second);
            prop_assert!(transaction_id_floor(earlier) <= first && first < transaction_id_floor(later));
            prop_assert_eq!((first.get_version_num(), first.get_variant()), (7, uuid::Variant::RFC4122));
        }

        #[test]
        fn within_a_microsecond_ids_sort_by_account_seq_up_to_the_next_multiple(
            a in 0_i64..4_000_000_000_000_000, block in 0_i64..1_000_000,
            m in 0..TRANSACTION_ID_SEQS - 1, gap in 1..TRANSACTION_ID_SEQS, (r, s) in any::<(u64, u64)>(),
        ) {
            let at = DateTime::from_timestamp_micros(a).expect("in range");
            let number = block * TRANSACTION_ID_SEQS + m;
            let later = (number + gap).min((block + 1) * TRANSACTION_ID_SEQS - 1);
            let (first, second) = (transaction_id(at, number, r), transaction_id(at, later, s));
            prop_assert!(first < second);
            prop_assert_ne!(transaction_id(at, number, r), transaction_id(at, number, !r), "the remaining bits are random");
        }
    }
}
