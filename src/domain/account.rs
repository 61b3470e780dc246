//! Accounts: identifiers, and the state that a posting decision needs.

use std::{borrow::Borrow, fmt, sync::Arc};

use chrono::{DateTime, Utc};

use super::Currency;

const ACCOUNT_ID_LENGTH_MAX: usize = 64;

/// The identifier of an account: 1–64 characters of `A-Z a-z 0-9 . _ : -`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(Arc<str>);

/// The error for a text that is not an account identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 of the characters A-Z a-z 0-9 . _ : -")]
pub struct AccountIdError;

impl AccountId {
    /// Parses an identifier.
    pub fn parse(text: &str) -> Result<Self, AccountIdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
        if text.is_empty() || text.len() > ACCOUNT_ID_LENGTH_MAX || !text.bytes().all(allowed) {
            return Err(AccountIdError);
        }
        Ok(Self(text.into()))
    }

    /// Returns the identifier as text.
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

/// The state of an account for a posting decision. The balance is a function of `account_seq`: two copies with the same
/// sequence number are equal. So a writer can decide from memory and let the database compare the sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountState {
    /// Set when the account is opened; never changes.
    pub currency: Currency,
    /// The balance in minor units.
    pub balance: i64,
    /// The sequence number of the account's last transaction. 0 before the first.
    pub account_seq: i64,
    /// The limit in minor units: a debit to a balance below it is refused. None means no limit.
    pub min_balance: Option<i64>,
    /// When the last transaction was created. The next one is never earlier.
    pub last_created_at: Option<DateTime<Utc>>,
}

impl AccountState {
    /// Returns the state of an account without transactions.
    pub fn opened(currency: Currency) -> Self {
        Self { currency, balance: 0, account_seq: 0, min_balance: None, last_created_at: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabet_and_length_are_checked() {
        assert!(AccountId::parse("acct-42.A_b:9").is_ok());
        assert!(AccountId::parse(&"a".repeat(64)).is_ok());
        for text in ["", "a b", "a/b", "ä", "a\0", &"a".repeat(65)] {
            assert_eq!(AccountId::parse(text), Err(AccountIdError), "{text:?}");
        }
    }
}
