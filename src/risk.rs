//! Explainable rules, pure: a rule file in, a [`Ruleset`] out; a transaction and its account's history in, an
//! [`Assessment`] out. Used by `consume-risk`, `ledger risk` and `ledger dlq` alike.
//!
//! What it guarantees: the result is a function of the rule file, the transaction, and the account's rows before it
//! (at most `history_rows` of them, by `account_seq`). Nothing here is async, speaks SQL, or reads a clock, so scoring
//! the same event again gives the same result. Money is whole minor units; there is no float
//! to be had in a rule. A file is tried on made-up transactions before it is accepted ([`Ruleset::parse`]), so what
//! would fail on the first missing field fails at the analyst's desk instead.

mod build;
mod expression;
mod feature;
mod history;
mod reason;
mod rows;
mod rule_file;
mod ruleset;
mod score;
mod trial;

#[cfg(test)]
mod tests;

pub use crate::domain::RiskLevel;
pub use history::AccountHistory;
pub use rows::HistoryRow;
pub use rule_file::RuleFileError;
pub use ruleset::{Mode, RuleSummary, Ruleset, SHIPPED_RULES};
pub use score::{Assessment, ScoreError, Subject};
