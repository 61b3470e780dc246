//! The reason of a rule: a text with `{names}` that are replaced by values. `{{` and `}}` stand for braces.

use std::{fmt::Write, time::Duration};

use super::{
    feature::Unit,
    ruleset::{Symbol, Variable},
    score::Observation,
};
use crate::domain::{Currency, format_minor};

#[derive(Debug)]
pub(super) struct Reason(Vec<ReasonPart>);

#[derive(Debug)]
enum ReasonPart {
    Text(String),
    Value(Symbol),
    Metadata(String),
}

impl Reason {
    /// Parses the text and resolves its names with `lookup`. The error text is for the analyst.
    pub fn parse(text: &str, lookup: impl Fn(&str) -> Result<Symbol, String>) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            match character {
                '{' | '}' if rest.peek() == Some(&character) => {
                    rest.next();
                    plain.push(character);
                }
                '{' => {
                    let name: String = rest.by_ref().take_while(|next| *next != '}').collect();
                    parts.push(ReasonPart::Text(std::mem::take(&mut plain)));
                    parts.push(placeholder(&name, &lookup)?);
                }
                '}' => return Err("a single }; write }} for a brace".into()),
                other => plain.push(other),
            }
        }
        parts.push(ReasonPart::Text(plain));
        Ok(Self(parts))
    }

    /// Returns whether the text uses an entry of `metadata`.
    pub fn mentions_metadata(&self) -> bool {
        self.0.iter().any(|part| matches!(part, ReasonPart::Metadata(_)))
    }

    /// Returns the text with the values of one transaction.
    pub fn fill(&self, observation: &Observation<'_>) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                ReasonPart::Text(plain) => text.push_str(plain),
                ReasonPart::Value(symbol) => write_value(&mut text, *symbol, observation),
                ReasonPart::Metadata(name) => match observation.metadata_text(name) {
                    Some(value) => text.push_str(&value),
                    None => text.push_str("none"),
                },
            }
        }
        text
    }
}

fn placeholder(name: &str, lookup: impl Fn(&str) -> Result<Symbol, String>) -> Result<ReasonPart, String> {
    if let Some(field) = name.strip_prefix("metadata.") {
        return Ok(ReasonPart::Metadata(field.to_owned()));
    }
    match lookup(name)? {
        Symbol::Variable(Variable::Metadata) => {
            Err("name one entry of metadata, such as {metadata.country}".into())
        }
        symbol => Ok(ReasonPart::Value(symbol)),
    }
}

fn write_value(text: &mut String, symbol: Symbol, observation: &Observation<'_>) {
    let subject = observation.subject;
    let money = |minor: i64| money_text(minor, subject.currency);
    let value = match symbol {
        Symbol::Amount(at) => money(observation.amount_at(at)),
        Symbol::Feature(at) => match observation.unit_at(at) {
            Unit::Number => observation.feature_at(at).to_string(),
            Unit::Money => money(observation.feature_at(at)),
            Unit::Seconds => duration_text(observation.feature_at(at)),
        },
        Symbol::Variable(variable) => match variable {
            Variable::Amount => money(subject.amount.saturating_abs()),
            Variable::SignedAmount => money(subject.amount),
            Variable::BalanceAfter => money(subject.balance_after),
            Variable::BalanceBefore => money(observation.balance_before()),
            Variable::Direction => subject.direction().as_str().to_owned(),
            Variable::Currency => subject.currency.code().to_owned(),
            Variable::AccountId => subject.account_id.to_owned(),
            Variable::AccountSeq => subject.account_seq.to_string(),
            Variable::Counterparty => subject.counterparty.unwrap_or("none").to_owned(),
            Variable::Description => subject.description.unwrap_or("none").to_owned(),
            Variable::Hour => observation.hour().to_string(),
            Variable::Weekday => observation.weekday().to_string(),
            Variable::IsReversal => subject.is_reversal.to_string(),
            Variable::Metadata => String::new(),
        },
    };
    // Writing to a String cannot fail.
    let _ = write!(text, "{value}");
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
