//! The values that a rule and its reason see for one transaction.

use std::{collections::HashMap, time::Duration};

use cel::{
    common::{
        types::{CelBool, CelInt, CelMap, CelMapKey, CelString},
        value::{CowVal, Val},
    },
    context::VariableResolver,
};
use chrono::{Datelike, Timelike};
use serde_json::Value as Json;

use super::{
    Ruleset,
    feature::{Feature, Unit},
    subject::{Subject, scalar_text},
    symbol::{Symbol, Variable},
};
use crate::domain::{Currency, format_minor};

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
        self.ruleset.features().get(at).map_or(Unit::Number, Feature::unit)
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

    /// Returns the value of a name as text for a reason.
    pub fn text_of(&self, symbol: Symbol) -> String {
        let subject = self.subject;
        let money = |minor: i64| money_text(minor, subject.currency);
        match symbol {
            Symbol::Amount(at) => money(self.amount_at(at)),
            Symbol::Feature(at) => match self.unit_at(at) {
                Unit::Number => self.feature_at(at).to_string(),
                Unit::Money => money(self.feature_at(at)),
                Unit::Seconds => duration_text(self.feature_at(at)),
            },
            Symbol::Variable(variable) => match variable {
                Variable::Amount => money(subject.amount.saturating_abs()),
                Variable::SignedAmount => money(subject.amount),
                Variable::BalanceAfter => money(subject.balance_after),
                Variable::BalanceBefore => money(self.balance_before()),
                Variable::Direction => subject.direction().as_str().to_owned(),
                Variable::Currency => subject.currency.code().to_owned(),
                Variable::AccountId => subject.account_id.to_owned(),
                Variable::AccountSeq => subject.account_seq.to_string(),
                Variable::Counterparty => subject.counterparty.unwrap_or("none").to_owned(),
                Variable::Description => subject.description.unwrap_or("none").to_owned(),
                Variable::Hour => self.hour().to_string(),
                Variable::Weekday => self.weekday().to_string(),
                Variable::IsReversal => subject.is_reversal.to_string(),
                Variable::Metadata => String::new(),
            },
        }
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

fn money_text(minor: i64, currency: Currency) -> String {
    format!("{} {currency}", format_minor(minor, currency))
}

fn duration_text(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(seconds) => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
        Err(_) => "never".into(),
    }
}
