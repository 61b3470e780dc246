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

/// The client's key for one request on one account: 1–255 visible ASCII characters, the first not a double quote.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    /// Parses a key that is a plain string: a JSON string, or the cell of a file. Its characters are the key. A leading
    /// double quote is refused: the writer meant the quoted form of the header, which would be another key.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        if text.starts_with('"') {
            let message =
                "must not begin with a double quote: the quotes of the header are not part of the key";
            return Err(FieldError(message.into()));
        }
        let is_short = (1..=IDEMPOTENCY_KEY_LENGTH_MAX).contains(&text.len());
        if !is_short || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(FieldError("must be 1 to 255 visible ASCII characters".into()));
        }
        Ok(Self(text.into()))
    }

    /// Parses the value of the header `Idempotency-Key`. A value in double quotes is a string of RFC 8941, where `\"` is a
    /// double quote and `\\` a backslash. A bare value is its own text, unless RFC 8941 gives it another meaning.
    pub fn parse_header(value: &str) -> Result<Self, FieldError> {
        match value.strip_prefix('"') {
            Some(rest) => Self::parse(&unquoted(value, rest)?),
            None => Self::parse(value).and_then(|key| key.checked_as_bare(value)),
        }
    }

    /// Refuses a bare value that RFC 8941 does not read as its own text: a list, parameters, a part of a quoted string, a
    /// byte sequence, a boolean, a date or an inner list.
    fn checked_as_bare(self, value: &str) -> Result<Self, FieldError> {
        let is_ambiguous = value.contains(['"', '\\', ';', ',']) || value.starts_with([':', '?', '@', '(']);
        if is_ambiguous {
            return Err(FieldError(format!("is ambiguous: write {value} {QUOTED}")));
        }
        Ok(self)
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

const QUOTED: &str = r#"as one string in double quotes, with \" for " and \\ for \"#;

/// Returns the content of a quoted string of RFC 8941. `rest` is the value after its first double quote.
fn unquoted(value: &str, rest: &str) -> Result<String, FieldError> {
    let malformed = || {
        let shown: String = value.chars().take(IDEMPOTENCY_KEY_LENGTH_MAX).collect();
        FieldError(format!("is malformed: {shown} is not written {QUOTED}"))
    };
    let (mut content, mut rest) = (String::new(), rest.chars());
    loop {
        match rest.next().ok_or_else(malformed)? {
            '"' if rest.as_str().is_empty() => return Ok(content),
            '"' => return Err(malformed()),
            '\\' => match rest.next() {
                Some(escaped @ ('"' | '\\')) => content.push(escaped),
                _ => return Err(malformed()),
            },
            character => content.push(character),
        }
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

    /// Fails if a quoted value is taken without its escapes: `"a\\b"` and `a\b` are then two keys.
    #[test]
    fn a_header_and_a_plain_string_name_the_same_keys() {
        let same = [
            ("abc", "abc"),
            ("\"abc\"", "abc"),
            (r#""a\\b""#, r"a\b"),
            (r#""a\"b;c,d""#, r#"a"b;c,d"#),
            (r#""?1""#, "?1"),
            ("01a206a6-4f5f-7c41-87f5-c48b0979c33c", "01a206a6-4f5f-7c41-87f5-c48b0979c33c"),
            ("order:77/2=", "order:77/2="),
        ];
        for (header, plain) in same {
            let key = IdempotencyKey::parse(plain).expect(plain);
            assert_eq!(IdempotencyKey::parse_header(header), Ok(key.clone()), "{header}");
            assert_eq!(key.as_str(), plain);
        }
        assert!(IdempotencyKey::parse(&"k".repeat(255)).is_ok());
        assert!(
            IdempotencyKey::parse_header(&format!("\"{}\"", r#"\""#.repeat(254) + "k")).is_err(),
            "a leading quote"
        );
        assert!(IdempotencyKey::parse_header(&format!("\"k{}\"", r#"\""#.repeat(254))).is_ok());
        let reversal = IdempotencyKey::of_reversal(Uuid::nil());
        assert!(IdempotencyKey::parse(reversal.as_str()).is_err(), "no client can use it");
        assert!(
            IdempotencyKey::parse_header(&format!("\"{}\"", reversal.as_str())).is_err(),
            "no client can use it"
        );
    }

    #[test]
    fn keys_that_could_mean_two_things_are_refused() {
        for plain in ["", "abc def", "ä", "\"abc\"", "\"", &"k".repeat(256)] {
            assert!(IdempotencyKey::parse(plain).is_err(), "{plain:?}");
        }
        let malformed =
            ["\"\"", "\"abc", "\"a\"b\"", "\"a\";b=1", r#""a\b""#, r#""a\""#, "\"a b\"", "\"a\" "];
        let ambiguous = ["a\"b", "a;b=1", "a,b", r"a\b", ":YWI=:", "?1", "@1", "(a)", "a\""];
        for header in malformed.iter().chain(&ambiguous) {
            assert!(IdempotencyKey::parse_header(header).is_err(), "{header:?}");
        }
        let refused = IdempotencyKey::parse_header("a;b").expect_err("refused").to_string();
        assert!(refused.contains("is ambiguous: write a;b as one string"), "{refused}");
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
