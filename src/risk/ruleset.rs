//! A rule file made ready: names resolved, expressions compiled, amounts worked out for every currency.

use std::{collections::HashMap, sync::Arc};

use cel::Context;
use chrono::{DateTime, Utc};

use super::{
    HistoryRow, RiskLevel, RuleFileError, Subject,
    build::Builder,
    expression::Expression,
    feature::Feature,
    reason::Reason,
    rows::{Label, Numbers, Rows},
    rule_file::{Source, read},
    score::scalar_text,
    trial,
};
use crate::domain::Currency;

/// The rule file that the binary carries.
pub const SHIPPED_RULES: &str = include_str!("../../config/rules.toml");

/// ISO 4217 knows 0 to 4 decimals.
pub(super) const DECIMALS_MAX: u8 = 4;

/// What a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Counts.
    Live,
    /// Is reported but does not count.
    Shadow,
    /// Is not evaluated.
    Off,
}

impl Mode {
    /// `live`, `shadow` or `off`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Shadow => "shadow",
            Self::Off => "off",
        }
    }
}

/// A rule as people list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSummary<'a> {
    /// Its id.
    pub id: &'a str,
    /// What it adds.
    pub score: i16,
    /// Whether it counts.
    pub mode: Mode,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub id: Box<str>,
    pub when: Expression,
    pub score: i16,
    pub reason: Reason,
    pub mode: Mode,
}

/// What a rule can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbol {
    Variable(Variable),
    /// Position among the amounts.
    Amount(usize),
    /// Position among the features.
    Feature(usize),
}

/// Facts of the transaction itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variable {
    Amount,
    SignedAmount,
    Direction,
    Currency,
    BalanceAfter,
    BalanceBefore,
    AccountId,
    AccountSeq,
    Counterparty,
    Description,
    Metadata,
    Hour,
    Weekday,
    IsReversal,
}

pub(super) const VARIABLES: &[(&str, Variable)] = &[
    ("amount", Variable::Amount),
    ("signed_amount", Variable::SignedAmount),
    ("direction", Variable::Direction),
    ("currency", Variable::Currency),
    ("balance_after", Variable::BalanceAfter),
    ("balance_before", Variable::BalanceBefore),
    ("account_id", Variable::AccountId),
    ("account_seq", Variable::AccountSeq),
    ("counterparty", Variable::Counterparty),
    ("description", Variable::Description),
    ("metadata", Variable::Metadata),
    ("hour", Variable::Hour),
    ("weekday", Variable::Weekday),
    ("is_reversal", Variable::IsReversal),
];

/// A text of a row of which features ask how many different ones there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tracked {
    Counterparty,
    /// The entry of this name.
    Metadata(Box<str>),
}

/// Rules ready to score with. Immutable; share it by [`Arc`].
pub struct Ruleset {
    pub(super) version: Arc<str>,
    pub(super) history_rows: usize,
    pub(super) levels: (i16, i16),
    pub(super) symbols: HashMap<Box<str>, Symbol>,
    pub(super) features: Vec<Feature>,
    pub(super) rules: Vec<Rule>,
    /// Texts that the history keeps.
    pub(super) tracked: Vec<Tracked>,
    pub(super) rules_read_metadata: bool,
    /// By currency, in minor units of it.
    pub(super) amounts: HashMap<Currency, Box<[i64]>>,
    /// By number of decimals.
    pub(super) roots: Vec<Context<'static, 'static>>,
}

impl std::fmt::Debug for Ruleset {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ruleset").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Ruleset {
    /// Reads a rule file, and tries it on made-up transactions: a rule that fails on one of them is refused.
    pub fn parse(text: &str) -> Result<Self, RuleFileError> {
        let (file, version) = read(text)?;
        let ruleset = Builder { source: Source(text), file: &file }.build(&version)?;
        trial::run(&ruleset, &file, Source(text))?;
        Ok(ruleset)
    }

    /// Content hash of the file: what assessments name as their `ruleset`.
    pub fn version(&self) -> Arc<str> {
        Arc::clone(&self.version)
    }

    /// How far back an event can see, in rows of its account, itself included.
    pub fn history_rows(&self) -> usize {
        self.history_rows
    }

    /// The rules in the order of the file.
    pub fn summaries(&self) -> impl Iterator<Item = RuleSummary<'_>> {
        self.rules.iter().map(|rule| RuleSummary { id: &rule.id, score: rule.score, mode: rule.mode })
    }

    /// The features' names.
    pub fn feature_names(&self) -> impl Iterator<Item = &str> {
        self.features.iter().map(|feature| &*feature.name)
    }

    /// A ledger row as history. `metadata` is the row's JSON, if any; what is no flat object counts as none.
    pub fn history_row(
        &self,
        account_seq: i64,
        created_at: DateTime<Utc>,
        amount: i64,
        counterparty: Option<&str>,
        metadata: Option<&str>,
    ) -> HistoryRow {
        let wanted =
            metadata.filter(|_| self.tracked.iter().any(|tracked| *tracked != Tracked::Counterparty));
        let parsed = wanted.and_then(|text| serde_json::from_str(text).ok());
        self.make_row(account_seq, created_at, amount, counterparty, parsed.as_ref())
    }

    /// How many bytes of memory a row takes in a history.
    pub fn history_row_bytes(&self) -> usize {
        Rows::bytes_of_row(self.labels_per_row())
    }

    pub(super) fn labels_per_row(&self) -> usize {
        self.tracked.len()
    }

    pub(super) fn row_of(&self, subject: &Subject<'_>) -> HistoryRow {
        let Subject { account_seq, created_at, amount, counterparty, metadata, .. } = *subject;
        self.make_row(account_seq, created_at, amount, counterparty, metadata)
    }

    fn make_row(
        &self,
        account_seq: i64,
        created_at: DateTime<Utc>,
        amount: i64,
        counterparty: Option<&str>,
        metadata: Option<&serde_json::Map<String, serde_json::Value>>,
    ) -> HistoryRow {
        let label = |tracked: &Tracked| match tracked {
            Tracked::Counterparty => counterparty.map(Label::of),
            Tracked::Metadata(name) => metadata?.get(&**name).map(|value| match value {
                serde_json::Value::String(text) => Label::of(text),
                other => Label::of(&scalar_text(other)),
            }),
        };
        let numbers = Numbers { account_seq, at_micros: created_at.timestamp_micros(), amount };
        HistoryRow { numbers, labels: self.tracked.iter().map(label).collect() }
    }

    pub(super) fn features(&self) -> &[Feature] {
        &self.features
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub(super) fn symbol(&self, name: &str) -> Option<Symbol> {
        self.symbols.get(name).copied()
    }

    pub(super) fn amounts_in(&self, currency: Currency) -> &[i64] {
        self.amounts.get(&currency).map(|amounts| &**amounts).unwrap_or_default()
    }

    pub(super) fn rules_read_metadata(&self) -> bool {
        self.rules_read_metadata
    }

    #[expect(clippy::indexing_slicing, reason = "one root for each number of decimals, made by `build`")]
    pub(super) fn root(&self, currency: Currency) -> &Context<'static, 'static> {
        &self.roots[usize::from(currency.decimals().min(DECIMALS_MAX))]
    }

    pub(super) fn level_of(&self, score: i16) -> RiskLevel {
        let (medium, high) = self.levels;
        match score {
            score if score >= high => RiskLevel::High,
            score if score >= medium => RiskLevel::Medium,
            _ => RiskLevel::Low,
        }
    }
}
