//! Scoring one transaction: what a rule sees, and what comes out.

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

/// Scores add up to at most this.
const SCORE_MAX: i16 = 100;

/// The transaction to score, borrowed from an event or from a ledger row.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The account.
    pub account_id: &'a str,
    /// 1, 2, 3 … per account.
    pub account_seq: i64,
    /// Minor units: positive for a credit, negative for a debit.
    pub amount: i64,
    /// The account's.
    pub currency: Currency,
    /// Minor units.
    pub balance_after: i64,
    /// Event time.
    pub created_at: DateTime<Utc>,
    /// The other side.
    pub counterparty: Option<&'a str>,
    /// Free text.
    pub description: Option<&'a str>,
    /// Flat object.
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

/// What the rules say about one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// 0–100: the scores of the live rules that fired, capped.
    pub risk_score: i16,
    /// By the thresholds of the rule file.
    pub risk_level: RiskLevel,
    /// Live rules that fired, in the order of the file.
    pub reasons: Vec<RiskReason>,
    /// Shadow rules that would have fired.
    pub shadow_reasons: Vec<RiskReason>,
    /// The version of the rules.
    pub ruleset: Arc<str>,
}

/// Why there is no assessment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// An expression failed on this transaction: a fault of the rule, the same at every try.
    #[error("rule {rule}: {cause}")]
    Rule {
        /// The rule's id.
        rule: String,
        /// What the expression ran into.
        cause: String,
    },
    /// The history already holds this row or a later one: a fault of the caller.
    #[error("transaction {account_seq} cannot be scored on a history that reaches to {last}")]
    NotNext {
        /// Of the transaction.
        account_seq: i64,
        /// Of the history's last row.
        last: i64,
    },
}

impl Ruleset {
    /// Scores the transaction on its account's history so far and adds it to that history (also when a rule fails:
    /// the row is in the ledger all the same).
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

    /// Adds a row to the history without scoring it: it was assessed before. Like [`Ruleset::score`], the row must come
    /// after those that the history holds; otherwise nothing happens.
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
                .holds(root, observation)
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

/// Everything that a rule can name, for one transaction.
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

    /// 0–23, UTC.
    pub fn hour(&self) -> i64 {
        i64::from(self.subject.created_at.hour())
    }

    /// 1 for Monday to 7 for Sunday, UTC.
    pub fn weekday(&self) -> i64 {
        i64::from(self.subject.created_at.weekday().number_from_monday())
    }

    pub fn metadata_text(&self, name: &str) -> Option<String> {
        self.subject.metadata?.get(name).map(scalar_text)
    }
}

/// A metadata value as text: strings as they are, the rest as JSON writes it.
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
