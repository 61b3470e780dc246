//! Query parameters: every one is known or refused, each is parsed into a domain value, two that contradict each other are
//! refused, and all that are wrong are named at once.

use bigdecimal::BigDecimal;
use chrono::{DateTime, Datelike, Utc};

use super::problem::{FieldProblem, Problem, ProblemKind};
use crate::{
    domain::{AccountId, Direction, RiskLevel, RiskState, parse_moment},
    repository::PageRequest,
};

/// The parameters of one request, taken out one by one; what is left over is unknown.
pub struct Parameters {
    pairs: Vec<(String, String)>,
    problems: Vec<FieldProblem>,
}

impl Parameters {
    /// Splits a query string.
    pub fn parse(query: &str) -> Result<Self, Problem> {
        let pairs: Vec<(String, String)> = decoded_pairs(query)?;
        Ok(Self { pairs, problems: Vec::new() })
    }

    /// Returns the parameters but the cursor, sorted and decoded: what a cursor belongs to.
    pub fn without_cursor(&self) -> String {
        let mut pairs: Vec<_> = self.pairs.iter().filter(|(name, _)| name != "cursor").collect();
        pairs.sort();
        // No name or value holds U+0000.
        pairs.iter().map(|(name, value)| format!("{name}\0{value}\0")).collect()
    }

    /// Takes a parameter out and parses it. Absent is None; wrong, or there twice, is remembered for [`Self::end`].
    pub fn take<T, E: std::fmt::Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let mut values = self.pairs.extract_if(.., |(known, _)| known == name).map(|(_, value)| value);
        let value = values.next()?;
        let repeated = values.next().is_some();
        drop(values);
        if repeated {
            self.wrong(name, "must be given once");
            return None;
        }
        match parse(&value) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.wrong(name, &error.to_string());
                None
            }
        }
    }

    /// Takes out what every list can be asked for.
    pub fn take_page(&mut self) -> PageRequest {
        let page = PageRequest {
            account_id: self.take("account_id", account_id),
            from: self.take("from", moment),
            to: self.take("to", moment),
            limit: self.take("limit", limit).unwrap_or(LIMIT_DEFAULT),
            before: None,
        };
        self.in_order(("from", &page.from), ("to", &page.to));
        page
    }

    /// Remembers for [`Self::end`] that two parameters leave nothing between them. Nobody means that, so an empty list
    /// would hide the mistake.
    pub fn in_order<T: PartialOrd>(&mut self, least: (&str, &Option<T>), greatest: (&str, &Option<T>)) {
        if let (Some(low), Some(high)) = (least.1, greatest.1)
            && low > high
        {
            self.wrong(least.0, &format!("must not be greater than `{}`", greatest.0));
            self.wrong(greatest.0, &format!("must not be less than `{}`", least.0));
        }
    }

    fn wrong(&mut self, name: &str, message: &str) {
        self.problems.push(FieldProblem { field: name.into(), message: message.into() });
    }

    /// Refuses what is left over and what was wrong, all at once.
    pub fn end(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.pairs) {
            self.wrong(&name, "is not a known parameter");
        }
        if self.problems.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.problems.iter().map(|problem| problem.field.as_str()).collect();
        let detail = format!("query parameters are not valid: {}", names.join(", "));
        Err(Problem::new(ProblemKind::Malformed, detail).with_errors(self.problems))
    }
}

fn decoded_pairs(query: &str) -> Result<Vec<(String, String)>, Problem> {
    if !is_percent_encoded(query) {
        let detail = "the query string has a % without two hexadecimal digits behind it";
        return Err(Problem::new(ProblemKind::Malformed, detail));
    }
    let decoded = actix_web::web::Query::<Vec<(String, String)>>::from_query(query);
    let pairs = decoded
        .map_err(|_| Problem::new(ProblemKind::Malformed, "the query string cannot be read"))?
        .into_inner();
    if pairs.iter().any(|(name, value)| name.contains('\0') || value.contains('\0')) {
        return Err(Problem::new(ProblemKind::Malformed, "the query string contains U+0000"));
    }
    // What is not UTF-8 was decoded to U+FFFD, which would be another question than the one that was asked.
    if pairs.iter().any(|(name, value)| name.contains('\u{fffd}') || value.contains('\u{fffd}')) {
        return Err(Problem::new(ProblemKind::Malformed, "the query string is not UTF-8"));
    }
    Ok(pairs)
}

fn is_percent_encoded(query: &str) -> bool {
    query.split('%').skip(1).all(|rest| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2)
}

/// An RFC 3339 moment.
pub fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    let parsed = parse_moment(text);
    // An offset can lead out of the four digits that a year has.
    parsed.filter(|moment| (0..=9999).contains(&moment.year())).ok_or_else(|| match text.contains(' ') {
        true => {
            "must be an RFC 3339 moment such as 2026-01-31T12:00:00Z; a + in a query is written %2B".into()
        }
        false => "must be an RFC 3339 moment such as 2026-01-31T12:00:00Z".into(),
    })
}

/// A page size.
fn limit(text: &str) -> Result<i64, String> {
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|text| text.parse().ok())
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or(format!("must be 1 to {LIMIT_MAX}"))
}

const LIMIT_MAX: i64 = 200;
/// The page size where none is given.
const LIMIT_DEFAULT: i64 = 50;
const DECIMAL_LENGTH_MAX: usize = 24;

/// A decimal that is not negative, short enough to compare cheaply.
pub fn decimal(text: &str) -> Result<BigDecimal, &'static str> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !plain || text.len() > DECIMAL_LENGTH_MAX || text.starts_with('.') || text.ends_with('.') {
        return Err("must be a plain decimal such as 125.50");
    }
    text.parse().map_err(|_| "must be a plain decimal such as 125.50")
}

/// `credit` or `debit`.
pub fn direction(text: &str) -> Result<Direction, String> {
    Direction::parse(text).map_err(|error| error.to_string())
}

/// An account identifier.
fn account_id(text: &str) -> Result<AccountId, String> {
    AccountId::parse(text).map_err(|error| error.to_string())
}

/// `low`, `medium`, `high`, or `pending` for what is not assessed yet.
pub fn risk_state(text: &str) -> Result<RiskState, &'static str> {
    RiskState::parse(text).ok_or("must be low, medium, high or pending")
}

/// `low`, `medium` or `high`: what an assessment can be.
pub fn risk_level(text: &str) -> Result<RiskLevel, &'static str> {
    RiskLevel::parse(text).ok_or("must be low, medium or high")
}

const SHORT_TEXT_LENGTH_MAX: usize = 128;

/// A rule's name, a ruleset's hash, a cursor.
pub fn short_text(text: &str) -> Result<String, String> {
    if (1..=SHORT_TEXT_LENGTH_MAX).contains(&text.len()) {
        return Ok(text.into());
    }
    Err(format!("must be 1 to {SHORT_TEXT_LENGTH_MAX} bytes"))
}
