//! Accounts: their identifiers and the state that a posting decision needs.

use std::{borrow::Borrow, fmt, sync::Arc};

use chrono::{DateTime, Utc};

use super::Currency;

const ACCOUNT_ID_LENGTH_MAX: usize = 64;

/// An account's identifier: 1–64 of `A-Z a-z 0-9 . _ : -`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(Arc<str>);

/// The text is no account identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 of the characters A-Z a-z 0-9 . _ : -")]
pub struct AccountIdError;

impl AccountId {
    /// Checks the length and the alphabet.
    pub fn parse(text: &str) -> Result<Self, AccountIdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
        if text.is_empty() || text.len() > ACCOUNT_ID_LENGTH_MAX || !text.bytes().all(allowed) {
            return Err(AccountIdError);
        }
        Ok(Self(text.into()))
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for AccountId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", &*self.0)
    }
}

/// An account as a posting decision sees it. The balance is a function of `account_seq`: two copies with the same
/// sequence number agree, which is what lets a writer decide from memory and have the database check it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// Fixed when the account opens; never changes.
    pub currency: Currency,
    /// Minor units.
    pub balance: i64,
    /// Sequence number of the account's last transaction; 0 before the first.
    pub account_seq: i64,
    /// A debit that would leave less than this (minor units) is refused. None: no limit.
    pub min_balance: Option<i64>,
    /// When the last transaction was created; the next is never earlier.
    pub last_created_at: Option<DateTime<Utc>>,
}

impl AccountState {
    /// An account that has just been opened and holds nothing.
    pub fn opened(currency: Currency) -> Self {
        Self { currency, balance: 0, account_seq: 0, min_balance: None, last_created_at: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_and_the_length_are_held() {
        assert!(AccountId::parse("acct-42.A_b:9").is_ok());
        assert!(AccountId::parse(&"a".repeat(64)).is_ok());
        for text in ["", "a b", "a/b", "ä", "a\0", &"a".repeat(65)] {
            assert_eq!(AccountId::parse(text), Err(AccountIdError), "{text:?}");
        }
    }
}
