//! The content of a transaction, before its account, its currency and its key are chosen.

use crate::domain::Direction;

/// The content of a transaction that a customer wants.
pub(super) struct Draft {
    pub(super) direction: Direction,
    /// The amount in hundredths of a main unit. Positive.
    pub(super) cents: i64,
    pub(super) counterparty: Option<String>,
    pub(super) country: &'static str,
    pub(super) channel: &'static str,
}
