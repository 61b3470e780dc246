//! Query parameters: parsed into domain values, and refused if they are unknown, wrong, repeated or contradict each other.
//! The answer lists all wrong parameters at once.

use bigdecimal::BigDecimal;
use chrono::{DateTime, Datelike, Utc};

use super::problem::{FieldProblem, Problem, ProblemKind};
use crate::{
    domain::{AccountId, Direction, IdempotencyKey, RiskLevel, RiskState, parse_moment},
    repository::PageRequest,
};

/// The parameters of one request. A handler takes the known ones out; [`Parameters::finish`] refuses the rest.
pub struct Parameters {
    pairs: Vec<(String, String)>,
    problems: Vec<FieldProblem>,
}

impl Parameters {
    /// Splits and decodes a query string.
    pub fn parse(query: &str) -> Result<Self, Problem> {
        let pairs: Vec<(String, String)> = decoded_pairs(query)?;
        Ok(Self { pairs, problems: Vec::new() })
    }

    /// Returns all parameters except the cursor, sorted and decoded. A cursor is bound to this text.
    pub fn without_cursor(&self) -> String {
        let mut pairs: Vec<_> = self.pairs.iter().filter(|(name, _)| name != "cursor").collect();
        pairs.sort();
        // No name or value contains U+0000, so it separates them.
        pairs.iter().map(|(name, value)| format!("{name}\0{value}\0")).collect()
    }

    /// Takes a parameter out and parses it. Returns None if it is absent. A wrong or repeated parameter gives None too, and
    /// [`Self::finish`] reports it.
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
            self.add_error(name, "must be given once");
            return None;
        }
        match parse(&value) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.add_error(name, &error.to_string());
                None
            }
        }
    }

    /// Takes out the parameters that all lists have.
    pub fn take_page(&mut self) -> PageRequest {
        let page = PageRequest {
            account_id: self.take("account_id", account_id),
            from: self.take("from", moment),
            to: self.take("to", moment),
            limit: self.take_limit(),
            before: None,
        };
        self.check_order(("from", &page.from), ("to", &page.to));
        page
    }

    /// Takes out the page size.
    pub fn take_limit(&mut self) -> i64 {
        self.take("limit", limit).unwrap_or(LIMIT_DEFAULT)
    }

    /// Checks that a look-up by key has the parameter that it needs and none that it would ignore. `others` are all other
    /// filters, and whether each is given.
    pub fn check_look_up(&mut self, name: &str, needed: (&str, bool), others: &[(&str, bool)]) {
        if !needed.1 {
            self.add_error(
                name,
                &format!("needs `{}`, because a key is unique within its account", needed.0),
            );
        }
        for (other, _) in others.iter().filter(|(_, is_given)| *is_given) {
            self.add_error(other, &format!("cannot be combined with `{name}`, which finds one transaction"));
        }
    }

    /// Checks that a range is not empty; [`Self::finish`] reports it otherwise. An empty list would hide the client's
    /// mistake.
    pub fn check_order<T: PartialOrd>(&mut self, least: (&str, &Option<T>), greatest: (&str, &Option<T>)) {
        if let (Some(low), Some(high)) = (least.1, greatest.1)
            && low > high
        {
            self.add_error(least.0, &format!("must not be greater than `{}`", greatest.0));
            self.add_error(greatest.0, &format!("must not be less than `{}`", least.0));
        }
    }

    fn add_error(&mut self, name: &str, message: &str) {
        self.problems.push(FieldProblem { field: name.into(), message: message.into() });
    }

    /// Returns a 400 that lists all unknown and wrong parameters, if there are any.
    pub fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.pairs) {
            self.add_error(&name, "is not a parameter of this path");
        }
        if self.problems.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.problems.iter().map(|problem| problem.field.as_str()).collect();
        let detail = format!("query parameters with wrong values: {}", names.join(", "));
        Err(Problem::new(ProblemKind::Malformed, detail).with_errors(self.problems))
    }
}

fn decoded_pairs(query: &str) -> Result<Vec<(String, String)>, Problem> {
    if !is_percent_encoded(query) {
        let detail = "the query string has a % that is not followed by two hexadecimal digits";
        return Err(Problem::new(ProblemKind::Malformed, detail));
    }
    let decoded = actix_web::web::Query::<Vec<(String, String)>>::from_query(query);
    let pairs = decoded
        .map_err(|_| Problem::new(ProblemKind::Malformed, "the query string cannot be read"))?
        .into_inner();
    if pairs.iter().any(|(name, value)| name.contains('\0') || value.contains('\0')) {
        return Err(Problem::new(ProblemKind::Malformed, "the query string contains U+0000"));
    }
    // Bytes that are not UTF-8 were decoded to U+FFFD, which would change the meaning of the query.
    if pairs.iter().any(|(name, value)| name.contains('\u{fffd}') || value.contains('\u{fffd}')) {
        return Err(Problem::new(ProblemKind::Malformed, "the query string is not UTF-8"));
    }
    Ok(pairs)
}

fn is_percent_encoded(query: &str) -> bool {
    query.split('%').skip(1).all(|rest| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2)
}

/// Parses an RFC 3339 moment.
pub fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    let parsed = parse_moment(text);
    // An offset can move the year out of four digits.
    parsed.filter(|moment| (0..=9999).contains(&moment.year())).ok_or_else(|| match text.contains(' ') {
        true => "must be an RFC 3339 moment such as 2026-01-31T12:00:00Z; write a + in a query as %2B".into(),
        false => "must be an RFC 3339 moment such as 2026-01-31T12:00:00Z".into(),
    })
}

/// Parses a page size.
fn limit(text: &str) -> Result<i64, String> {
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|text| text.parse().ok())
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or(format!("must be a whole number from 1 to {LIMIT_MAX}"))
}

const LIMIT_MAX: i64 = 200;
/// The page size if none is given.
const LIMIT_DEFAULT: i64 = 50;
const DECIMAL_LENGTH_MAX: usize = 24;

/// Parses a decimal that is not negative and has at most `DECIMAL_LENGTH_MAX` characters.
pub fn decimal(text: &str) -> Result<BigDecimal, &'static str> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !plain || text.len() > DECIMAL_LENGTH_MAX || text.starts_with('.') || text.ends_with('.') {
        return Err("must be a decimal that is not negative, such as 125.50, of at most 24 characters");
    }
    text.parse()
        .map_err(|_| "must be a decimal that is not negative, such as 125.50, of at most 24 characters")
}

/// Parses `credit` or `debit`.
pub fn direction(text: &str) -> Result<Direction, String> {
    Direction::parse(text).map_err(|error| error.to_string())
}

/// Parses an account identifier.
fn account_id(text: &str) -> Result<AccountId, String> {
    AccountId::parse(text).map_err(|error| error.to_string())
}

/// Parses the beginning of an account identifier.
pub fn account_prefix(text: &str) -> Result<String, String> {
    // Every beginning of an identifier is an identifier.
    Ok(account_id(text)?.to_string())
}

/// Parses an idempotency key, a plain string.
pub fn idempotency_key(text: &str) -> Result<IdempotencyKey, String> {
    IdempotencyKey::parse(text).map_err(|error| error.to_string())
}

/// Parses the only value of `include`.
pub fn include_risk(text: &str) -> Result<(), &'static str> {
    if text == "risk" { Ok(()) } else { Err("must be risk") }
}

/// Parses `low`, `medium`, `high`, or `pending` for a transaction without an assessment.
pub fn risk_state(text: &str) -> Result<RiskState, &'static str> {
    RiskState::parse(text).ok_or("must be low, medium, high or pending")
}

/// Parses `low`, `medium` or `high`.
pub fn risk_level(text: &str) -> Result<RiskLevel, &'static str> {
    RiskLevel::parse(text).ok_or("must be low, medium or high")
}

const SHORT_TEXT_LENGTH_MAX: usize = 128;

/// Parses a rule's name, a rule set's hash or a cursor.
pub fn short_text(text: &str) -> Result<String, String> {
    if (1..=SHORT_TEXT_LENGTH_MAX).contains(&text.len()) {
        return Ok(text.into());
    }
    Err(format!("must have 1 to {SHORT_TEXT_LENGTH_MAX} bytes"))
}
