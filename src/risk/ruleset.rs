//! A rule file ready to score with: names resolved, expressions compiled, amounts converted for every currency.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};

use super::{
    HistoryRow, RiskLevel,
    example::Example,
    expression::Expression,
    feature::Feature,
    layout::HistoryLayout,
    reason::Reason,
    rows::{RowNumbers, TextHash},
    subject::{Subject, scalar_text},
    suppression::Suppression,
};
use crate::domain::Currency;

/// The rule file in the binary.
pub const SHIPPED_RULES: &str = include_str!("../../config/rules.toml");

/// How a rule takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It adds to the score.
    Live,
    /// It is reported apart and adds nothing.
    Shadow,
    /// It is not evaluated.
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

/// A rule as `ledger risk check` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSummary<'a> {
    /// Its id.
    pub id: &'a str,
    /// The score that it adds.
    pub score: i16,
    /// How it takes part.
    pub mode: Mode,
    /// What the file says about the rule.
    pub notes: &'a RuleNotes,
    /// How many suppressions of the rule the file has.
    pub suppressions: usize,
}

/// What a rule file says about a rule for its readers. It does not change a score.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleNotes {
    /// What kind of pattern it finds.
    pub tags: Vec<String>,
    /// What it finds, in a sentence.
    pub description: Option<String>,
    /// Where the pattern is described.
    pub source: Option<String>,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub id: Box<str>,
    pub when: Expression,
    pub score: i16,
    pub reason: Reason,
    pub mode: Mode,
    pub notes: RuleNotes,
    pub suppressions: Vec<Suppression>,
}

/// A text of each row whose different values a feature counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TrackedText {
    Counterparty,
    /// The metadata entry of this name.
    Metadata(Box<str>),
}

/// Rules ready to score with. Immutable; share it by [`Arc`].
pub struct Ruleset {
    pub(super) version: Arc<str>,
    pub(super) history_rows: usize,
    /// The name and the number of entries of each list.
    pub(super) list_sizes: Vec<(String, usize)>,
    pub(super) levels: (i16, i16),
    pub(super) features: Vec<Feature>,
    pub(super) layout: HistoryLayout,
    pub(super) rules: Vec<Rule>,
    pub(super) examples: Vec<Example>,
    /// The texts that the history keeps as hashes.
    pub(super) tracked: Vec<TrackedText>,
    /// The amounts of each currency in its minor units.
    pub(super) amounts: HashMap<Currency, Box<[i64]>>,
}

impl std::fmt::Debug for Ruleset {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ruleset").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Ruleset {
    /// The version: a hash of the file's content. Assessments store it as `ruleset`.
    pub fn version(&self) -> Arc<str> {
        Arc::clone(&self.version)
    }

    /// Returns how many rows of its account an event sees, itself included.
    pub fn history_rows(&self) -> usize {
        self.history_rows
    }

    /// The rules in the order of the file.
    pub fn summaries(&self) -> impl Iterator<Item = RuleSummary<'_>> {
        self.rules.iter().map(|rule| RuleSummary {
            id: &rule.id,
            score: rule.score,
            mode: rule.mode,
            notes: &rule.notes,
            suppressions: rule.suppressions.len(),
        })
    }

    /// Returns how many steps the rules take for one event at most.
    pub fn cost(&self) -> u64 {
        self.rules.iter().map(|rule| rule.when.cost()).fold(0, u64::saturating_add)
    }

    /// The name and the number of entries of each list.
    pub fn list_sizes(&self) -> &[(String, usize)] {
        &self.list_sizes
    }

    /// The names of the features.
    pub fn feature_names(&self) -> impl Iterator<Item = &str> {
        self.features.iter().map(|feature| &*feature.name)
    }

    /// Returns a ledger row for the history. `metadata` is the row's JSON; anything but an object counts as no metadata.
    pub fn history_row(
        &self,
        account_seq: i64,
        created_at: DateTime<Utc>,
        amount: i64,
        counterparty: Option<&str>,
        metadata: Option<&str>,
    ) -> HistoryRow {
        let wanted =
            metadata.filter(|_| self.tracked.iter().any(|tracked| *tracked != TrackedText::Counterparty));
        let parsed = wanted.and_then(|text| serde_json::from_str(text).ok());
        self.make_row(account_seq, created_at, amount, counterparty, parsed.as_ref())
    }

    /// Returns about how many bytes of memory a row takes while the history of its account is read.
    pub fn history_row_bytes(&self) -> usize {
        size_of::<HistoryRow>() + self.tracked.len() * size_of::<Option<TextHash>>()
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
        let hash_of = |tracked: &TrackedText| match tracked {
            TrackedText::Counterparty => counterparty.map(TextHash::of),
            TrackedText::Metadata(name) => metadata?.get(&**name).map(|value| match value {
                serde_json::Value::String(text) => TextHash::of(text),
                other => TextHash::of(&scalar_text(other)),
            }),
        };
        let numbers = RowNumbers { account_seq, at_micros: created_at.timestamp_micros(), amount };
        HistoryRow { numbers, hashes: self.tracked.iter().map(hash_of).collect() }
    }

    pub(super) fn features(&self) -> &[Feature] {
        &self.features
    }

    pub(super) fn layout(&self) -> &HistoryLayout {
        &self.layout
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub(super) fn amounts_in(&self, currency: Currency) -> &[i64] {
        self.amounts.get(&currency).map(|amounts| &**amounts).unwrap_or_default()
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
