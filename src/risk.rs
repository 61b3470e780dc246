//! Explainable risk rules, used by `consume-risk`, `ledger risk` and `ledger dlq`.
//!
//! ```text
//! rule file ──────────────────────────▶ Ruleset
//! transaction + account history ──────▶ Assessment
//! ```
//!
//! Guarantees:
//! - The result is a function of the rule file, the transaction and at most `history_rows` rows of the account, the
//!   transaction's own row included. Nothing here is async, uses SQL or reads a clock, so scoring an event again gives
//!   the same result.
//! - Money is whole minor units. A rule cannot use floats.
//! - [`Ruleset::parse`] tries each rule on made-up transactions. A rule that would fail on the first transaction without
//!   some field is refused, so the analyst sees the error before production does.

mod build;
mod expression;
mod feature;
mod history;
mod layout;
mod observation;
mod reason;
mod recent_texts;
mod rows;
mod rule_file;
mod ruleset;
mod score;
mod subject;
mod symbol;
mod trial;

#[cfg(test)]
mod tests;

pub use crate::domain::RiskLevel;
pub use history::AccountHistory;
pub use rows::HistoryRow;
pub use rule_file::RuleFileError;
pub use ruleset::{Mode, RuleSummary, Ruleset, SHIPPED_RULES};
pub use score::{Assessment, ScoreError};
pub use subject::Subject;
