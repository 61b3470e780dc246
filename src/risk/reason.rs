//! A rule's reason: text with `{names}` that are filled with what was observed. `{{` and `}}` are braces.

use std::{fmt::Write, time::Duration};

use super::{
    feature::Unit,
    ruleset::{Symbol, Variable},
    score::Observation,
};
use crate::domain::{Currency, format_minor};

#[derive(Debug)]
pub(super) struct Reason(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    Value(Symbol),
    Metadata(String),
}

impl Reason {
    /// Parses the text; `lookup` knows the names. The error is for the analyst.
    pub fn parse(text: &str, lookup: impl Fn(&str) -> Result<Symbol, String>) -> Result<Self, String> {
        let mut pieces = Vec::new();
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
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    pieces.push(placeholder(&name, &lookup)?);
                }
                '}' => return Err("a } stands alone; write }} for a brace".into()),
                other => plain.push(other),
            }
        }
        pieces.push(Piece::Text(plain));
        Ok(Self(pieces))
    }

    /// The names looked up in `metadata`.
    pub fn mentions_metadata(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Metadata(_)))
    }

    /// The text with what was observed.
    pub fn fill(&self, observation: &Observation<'_>) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Value(symbol) => write_value(&mut text, *symbol, observation),
                Piece::Metadata(name) => match observation.metadata_text(name) {
                    Some(value) => text.push_str(&value),
                    None => text.push_str("none"),
                },
            }
        }
        text
    }
}

fn placeholder(name: &str, lookup: impl Fn(&str) -> Result<Symbol, String>) -> Result<Piece, String> {
    if let Some(field) = name.strip_prefix("metadata.") {
        return Ok(Piece::Metadata(field.to_owned()));
    }
    match lookup(name)? {
        Symbol::Variable(Variable::Metadata) => Err("name one entry, such as {metadata.country}".into()),
        symbol => Ok(Piece::Value(symbol)),
    }
}

fn write_value(text: &mut String, symbol: Symbol, observation: &Observation<'_>) {
    let subject = observation.subject;
    let money = |minor: i64| shown_money(minor, subject.currency);
    let shown = match symbol {
        Symbol::Amount(at) => money(observation.amount_at(at)),
        Symbol::Feature(at) => match observation.unit_at(at) {
            Unit::Number => observation.feature_at(at).to_string(),
            Unit::Money => money(observation.feature_at(at)),
            Unit::Seconds => shown_seconds(observation.feature_at(at)),
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
    let _ = write!(text, "{shown}");
}

fn shown_money(minor: i64, currency: Currency) -> String {
    format!("{} {currency}", format_minor(minor, currency))
}

fn shown_seconds(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(seconds) => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
        Err(_) => "never".into(),
    }
}
