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
//! - [`Ruleset::parse`] checks the types of each condition, all branches included, and limits its size and its cost. A
//!   rule that fails on a transaction is noted in the assessment; it never costs the assessment.

mod bounds;
mod build;
mod check;
mod check_values;
mod currencies;
mod evaluate;
mod example;
mod example_run;
mod expression;
mod feature;
mod history;
mod layout;
mod lists;
mod money;
mod node;
mod observation;
mod reason;
mod recent_texts;
mod rows;
mod rule_file;
mod ruleset;
mod scale;
mod score;
mod subject;
mod suppression;
mod symbol;
mod text_set;
mod types;
mod value;

#[cfg(test)]
mod tests;

pub use crate::domain::RiskLevel;
pub use example::Expectation;
pub use example_run::{ExampleActual, ExampleRun};
pub use history::AccountHistory;
pub use lists::{ReadListFile, list_files};
pub use rows::HistoryRow;
pub use rule_file::RuleFileError;
pub use ruleset::{Mode, RuleNotes, RuleSummary, Ruleset, SHIPPED_RULES};
pub use score::{Assessment, NotNext};
pub use subject::Subject;
