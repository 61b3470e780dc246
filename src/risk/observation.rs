//! The values that a rule and its reason see for one transaction.

use std::time::Duration;

use chrono::{Datelike, Timelike};

use super::{
    feature::{Feature, Unit},
    subject::{Subject, scalar_text},
    symbol::{Symbol, Variable},
    value::Value,
};
use crate::domain::{Currency, format_minor};

/// The values of all names for one transaction.
pub(super) struct Observation<'a> {
    declared: &'a [Feature],
    pub subject: &'a Subject<'a>,
    features: &'a [i64],
    amounts: &'a [i64],
}

impl<'a> Observation<'a> {
    /// Creates the values from the declared features, their values for the transaction, and the named amounts.
    pub fn new(
        declared: &'a [Feature],
        subject: &'a Subject<'a>,
        features: &'a [i64],
        amounts: &'a [i64],
    ) -> Self {
        Self { declared, subject, features, amounts }
    }

    pub fn amount_at(&self, at: usize) -> i64 {
        self.amounts.get(at).copied().unwrap_or_default()
    }

    pub fn feature_at(&self, at: usize) -> i64 {
        self.features.get(at).copied().unwrap_or_default()
    }

    pub fn unit_at(&self, at: usize) -> Unit {
        self.declared.get(at).map_or(Unit::Number, Feature::unit)
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

    /// Returns the entry of metadata with this name; null if there is none.
    pub fn entry(&self, name: &str) -> Value<'a> {
        Value::of_entry(self.subject.metadata.and_then(|entries| entries.get(name)))
    }

    pub fn has_entry(&self, name: &str) -> bool {
        self.subject.metadata.is_some_and(|entries| entries.contains_key(name))
    }

    pub fn entry_names(&self) -> impl Iterator<Item = &'a str> {
        self.subject.metadata.into_iter().flat_map(serde_json::Map::keys).map(String::as_str)
    }

    /// Returns the value of a name for a condition.
    pub fn value_of(&self, symbol: Symbol) -> Value<'a> {
        let subject = self.subject;
        let integer = |value: i64| Value::Integer(value.into());
        match symbol {
            Symbol::Amount(at) => integer(self.amount_at(at)),
            Symbol::Feature(at) => integer(self.feature_at(at)),
            Symbol::Variable(variable) => match variable {
                Variable::Amount => integer(subject.amount.saturating_abs()),
                Variable::SignedAmount => integer(subject.amount),
                Variable::BalanceAfter => integer(subject.balance_after),
                Variable::BalanceBefore => integer(self.balance_before()),
                Variable::Direction => Value::text(subject.direction().as_str()),
                Variable::Currency => Value::text(subject.currency.code()),
                Variable::AccountId => Value::text(subject.account_id),
                Variable::AccountSeq => integer(subject.account_seq),
                Variable::Counterparty => Value::text(subject.counterparty.unwrap_or_default()),
                Variable::Description => Value::text(subject.description.unwrap_or_default()),
                Variable::Hour => integer(self.hour()),
                Variable::Weekday => integer(self.weekday()),
                Variable::IsReversal => Value::Truth(subject.is_reversal),
                Variable::Metadata => Value::Metadata,
            },
        }
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

fn money_text(minor: i64, currency: Currency) -> String {
    format!("{} {currency}", format_minor(minor, currency))
}

fn duration_text(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(seconds) => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
        Err(_) => "never".into(),
    }
}
