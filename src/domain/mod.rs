//! The rules of the ledger: money, currencies, accounts, transactions and the posting decision.
//!
//! The domain is pure: no async code, no SQL, no HTTP and no clock. Time and random bits are passed in. Values are valid by
//! construction: an [`AccountId`] or an [`Amount`] never needs a second check.

mod account;
mod currency;
mod fact_mark;
mod moment;
mod money;
mod posting;
mod risk_level;
mod transaction;

pub use account::{AccountId, AccountIdError, AccountState};
pub use currency::{CURRENCIES, Currency, CurrencyError, UnknownCurrency};
pub use fact_mark::{FactMark, IdRange, fact_marks, union_of};
pub use moment::{format_moment, parse_moment, without_leap_second};
pub use money::{AMOUNT_MINOR_MAX, Amount, AmountError, format_minor, parse_minor};
pub use posting::{Decision, ExistingKeys, PostingClock, Refusal, decide};
pub use risk_level::{RiskLevel, RiskState};
pub use transaction::{
    COUNTERPARTY_LENGTH_MAX, DESCRIPTION_LENGTH_MAX, Direction, FieldError, IdempotencyKey,
    METADATA_BYTES_MAX, METADATA_ENTRIES_MAX, Metadata, Posting, TRANSACTION_ID_SEQS, Transaction,
    bounded_text, transaction_id, transaction_id_floor,
};
