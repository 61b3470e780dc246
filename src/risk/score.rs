//! Scores one transaction: the values that a rule sees, and the assessment.

use std::{collections::HashMap, sync::Arc};

use cel::{
    common::{
        types::{CelBool, CelInt, CelMap, CelMapKey, CelString},
        value::{CowVal, Val},
    },
    context::VariableResolver,
};
use chrono::{DateTime, Datelike, Timelike, Utc};
use serde_json::Value as Json;

use super::{
    AccountHistory, Mode, Ruleset,
    feature::Unit,
    ruleset::{Symbol, Variable},
};
use crate::{
    domain::{Currency, Direction, RiskLevel},
    event::RiskReason,
};

/// The highest total score.
const SCORE_MAX: i16 = 100;

/// A transaction to score, borrowed from an event or a ledger row.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The account.
    pub account_id: &'a str,
    /// Its number in the account: 1, 2, 3 …
    pub account_seq: i64,
    /// Minor units: positive for a credit, negative for a debit.
    pub amount: i64,
    /// The currency of the account.
    pub currency: Currency,
    /// Minor units.
    pub balance_after: i64,
    /// The event time.
    pub created_at: DateTime<Utc>,
    /// The counterparty.
    pub counterparty: Option<&'a str>,
    /// The description, a free text.
    pub description: Option<&'a str>,
    /// The metadata, a flat object.
    pub metadata: Option<&'a serde_json::Map<String, Json>>,
    /// Whether it reverses another transaction.
    pub is_reversal: bool,
}

impl Subject<'_> {
    /// Which way the money moves.
    pub fn direction(&self) -> Direction {
        Direction::of(self.amount)
    }
}

/// The result of scoring one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// The sum of the scores of the live rules that fired, at most 100.
    pub risk_score: i16,
    /// The level by the thresholds of the rule file.
    pub risk_level: RiskLevel,
    /// The live rules that fired, in the order of the file.
    pub reasons: Vec<RiskReason>,
    /// The shadow rules that fired.
    pub shadow_reasons: Vec<RiskReason>,
    /// The version of the rules.
    pub ruleset: Arc<str>,
}

/// Why there is no assessment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// An expression failed on this transaction. It fails the same way at each attempt.
    #[error("rule {rule}: {cause}")]
    Rule {
        /// The rule's id.
        rule: String,
        /// The error of the expression.
        cause: String,
    },
    /// The history already holds this row or a later one. This is a bug of the caller.
    #[error("transaction {account_seq} cannot be scored: the history already ends at {last}")]
    NotNext {
        /// The `account_seq` of the transaction.
        account_seq: i64,
        /// The `account_seq` of the history's last row.
        last: i64,
    },
}

impl Ruleset {
    /// Scores the transaction with the history of its account and adds it to that history. If a rule fails, the row is
    /// added too, because it is in the ledger all the same.
    pub fn score(
        &self,
        history: &mut AccountHistory,
        subject: &Subject<'_>,
    ) -> Result<Assessment, ScoreError> {
        let last = history.last_account_seq();
        if last >= subject.account_seq {
            return Err(ScoreError::NotNext { account_seq: subject.account_seq, last });
        }
        let amounts = self.amounts_in(subject.currency);
        let features = history.advance(self, amounts, &self.row_of(subject));
        let observation = Observation::new(self, subject, &features, amounts);
        self.assess(&observation)
    }

    /// Adds a row to the history without scoring it, because it already has an assessment. A row that does not come after
    /// the rows in the history is ignored.
    pub fn remember(&self, history: &mut AccountHistory, subject: &Subject<'_>) {
        if history.last_account_seq() < subject.account_seq {
            history.advance(self, self.amounts_in(subject.currency), &self.row_of(subject));
        }
    }

    fn assess(&self, observation: &Observation<'_>) -> Result<Assessment, ScoreError> {
        let root = self.root(observation.subject.currency);
        let mut total = 0_i16;
        let (mut reasons, mut shadow_reasons) = (Vec::new(), Vec::new());
        for rule in self.rules().iter().filter(|rule| rule.mode != Mode::Off) {
            let fired = rule
                .when
                .evaluate(root, observation)
                .map_err(|cause| ScoreError::Rule { rule: rule.id.to_string(), cause })?;
            if !fired {
                continue;
            }
            let reason = rule.reason.fill(observation);
            let reason = RiskReason { rule: rule.id.to_string(), score: rule.score, reason };
            match rule.mode {
                Mode::Live => {
                    total = total.saturating_add(rule.score).min(SCORE_MAX);
                    reasons.push(reason);
                }
                Mode::Shadow | Mode::Off => shadow_reasons.push(reason),
            }
        }
        Ok(Assessment {
            risk_score: total,
            risk_level: self.level_of(total),
            reasons,
            shadow_reasons,
            ruleset: self.version(),
        })
    }
}

/// The values of all names for one transaction.
pub(super) struct Observation<'a> {
    ruleset: &'a Ruleset,
    pub subject: &'a Subject<'a>,
    features: &'a [i64],
    amounts: &'a [i64],
    metadata: Option<CelMap<'a>>,
}

impl<'a> Observation<'a> {
    pub fn new(
        ruleset: &'a Ruleset,
        subject: &'a Subject<'a>,
        features: &'a [i64],
        amounts: &'a [i64],
    ) -> Self {
        let metadata = ruleset.rules_read_metadata().then(|| metadata_map(subject.metadata));
        Self { ruleset, subject, features, amounts, metadata }
    }

    pub fn amount_at(&self, at: usize) -> i64 {
        self.amounts.get(at).copied().unwrap_or_default()
    }

    pub fn feature_at(&self, at: usize) -> i64 {
        self.features.get(at).copied().unwrap_or_default()
    }

    pub fn unit_at(&self, at: usize) -> Unit {
        self.ruleset.features().get(at).map_or(Unit::Number, super::feature::Feature::unit)
    }

    pub fn balance_before(&self) -> i64 {
        self.subject.balance_after.saturating_sub(self.subject.amount)
    }

    /// The hour from 0 to 23, in UTC.
    pub fn hour(&self) -> i64 {
        i64::from(self.subject.created_at.hour())
    }

    /// The weekday from 1 (Monday) to 7 (Sunday), in UTC.
    pub fn weekday(&self) -> i64 {
        i64::from(self.subject.created_at.weekday().number_from_monday())
    }

    pub fn metadata_text(&self, name: &str) -> Option<String> {
        self.subject.metadata?.get(name).map(scalar_text)
    }
}

/// Returns a metadata value as text: a string unchanged, any other value as JSON.
pub(super) fn scalar_text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn metadata_map(metadata: Option<&serde_json::Map<String, Json>>) -> CelMap<'_> {
    let entries = metadata.into_iter().flatten().filter_map(|(name, value)| {
        let value: Box<dyn Val + '_> = match value {
            Json::String(text) => Box::new(CelString::from(text.as_str())),
            Json::Bool(truth) => Box::new(CelBool::from(*truth)),
            Json::Number(number) => Box::new(CelInt::from(number.as_i64()?)),
            Json::Null | Json::Array(_) | Json::Object(_) => return None,
        };
        Some((CelMapKey::String(CelString::from(name.as_str())), value))
    });
    CelMap::from(entries.collect::<HashMap<_, _>>())
}

impl VariableResolver for Observation<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let integer = |value: i64| Some(CowVal::owned(CelInt::from(value)));
        let text = |value: &'b str| Some(CowVal::owned(CelString::from(value)));
        let subject = self.subject;
        match self.ruleset.symbol(name)? {
            Symbol::Amount(at) => integer(self.amount_at(at)),
            Symbol::Feature(at) => integer(self.feature_at(at)),
            Symbol::Variable(variable) => match variable {
                Variable::Amount => integer(subject.amount.saturating_abs()),
                Variable::SignedAmount => integer(subject.amount),
                Variable::BalanceAfter => integer(subject.balance_after),
                Variable::BalanceBefore => integer(self.balance_before()),
                Variable::Direction => text(subject.direction().as_str()),
                Variable::Currency => text(subject.currency.code()),
                Variable::AccountId => text(subject.account_id),
                Variable::AccountSeq => integer(subject.account_seq),
                Variable::Counterparty => text(subject.counterparty.unwrap_or_default()),
                Variable::Description => text(subject.description.unwrap_or_default()),
                Variable::Hour => integer(self.hour()),
                Variable::Weekday => integer(self.weekday()),
                Variable::IsReversal => Some(CowVal::owned(CelBool::from(subject.is_reversal))),
                Variable::Metadata => self.metadata.as_ref().map(|map| CowVal::Borrowed(map as &dyn Val)),
            },
        }
    }
}
