//! Examples of a rule file: transactions of one account, and the expected result of the last one.
//!
//! Every rule file is checked whole, its examples included. Only `ledger risk check` runs them, see
//! [`super::example_run`]. They are not part of the version.

use std::{collections::HashMap, ops::Range};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use toml::Spanned;

use super::{
    RiskLevel, RuleFileError,
    money::minor_units,
    rule_file::{ExampleIn, ExampleTransactionIn, RuleFile, RuleText, did_you_mean, moment},
};
use crate::domain::{
    AccountId, COUNTERPARTY_LENGTH_MAX, Currency, DESCRIPTION_LENGTH_MAX, Metadata, bounded_text,
    parse_moment,
};

/// The most steps of all examples together, so that a check takes less than a second.
const STEPS_MAX: u64 = 10_000_000;
/// The transactions that cost as much as an example without any.
const EXAMPLE_ROWS: usize = 10;
/// The most transactions of an example.
const ROWS_MAX: usize = 10_000;
/// The moment from which the times of an example count: a Monday at noon.
const START_DEFAULT: &str = "2026-01-05T12:00:00Z";
const CURRENCY_DEFAULT: &str = "EUR";
const ACCOUNT_DEFAULT: &str = "example";
/// The last day that an example may reach, so that any time fits.
const YEARS_MAX: i64 = 100;

/// The expected result of the last transaction. None: not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expectation {
    /// Whether the rule of the example fires.
    pub fires: Option<bool>,
    /// The live rules that fire, in the order of the file.
    pub rules: Option<Vec<String>>,
    /// The score of all live rules.
    pub score: Option<i16>,
    /// The level of the score.
    pub level: Option<RiskLevel>,
}

#[derive(Debug)]
pub(super) struct Example {
    /// The index of the rule. None: an example of all rules.
    pub rule: Option<usize>,
    pub name: Box<str>,
    /// The line of the file.
    pub line: usize,
    pub account_id: Box<str>,
    pub currency: Currency,
    pub account_seq: i64,
    /// The balance before the first transaction.
    pub balance: i64,
    pub transactions: Vec<ExampleTransactions>,
    pub expected: Expectation,
}

/// One transaction, or several that are equal apart from their times.
#[derive(Debug)]
pub(super) struct ExampleTransactions {
    pub at: DateTime<Utc>,
    pub times: usize,
    pub every: TimeDelta,
    /// Minor units, negative for a debit.
    pub amount: i64,
    pub counterparty: Option<Box<str>>,
    pub description: Option<Box<str>>,
    pub metadata: Option<Map<String, Value>>,
    pub is_reversal: bool,
}

impl ExampleTransactions {
    fn last_at(&self) -> DateTime<Utc> {
        let intervals = i32::try_from(self.times.saturating_sub(1)).unwrap_or(i32::MAX);
        self.every.checked_mul(intervals).and_then(|all| self.at.checked_add_signed(all)).unwrap_or(self.at)
    }
}

/// How many steps an example takes.
pub(super) struct ExampleCost {
    /// The steps of each rule.
    pub rules: Vec<u64>,
    /// The features that each transaction of an example updates.
    pub row: usize,
}

impl ExampleCost {
    fn of(&self, example: &Example) -> u64 {
        let expected = &example.expected;
        let needs_all = expected.rules.is_some() || expected.score.is_some() || expected.level.is_some();
        let all = if needs_all { self.rules.iter().fold(0, |sum, cost| cost.saturating_add(sum)) } else { 0 };
        let own = example.rule.and_then(|index| self.rules.get(index)).copied().unwrap_or(0);
        let rows =
            example.transactions.iter().map(|each| each.times).fold(EXAMPLE_ROWS, usize::saturating_add);
        // The state of an account is made for each example. A text that is counted is looked for among those before it.
        let row = self.row.saturating_mul(1 + example.transactions.len() / 16).saturating_add(1);
        u64::try_from(rows.saturating_mul(row)).unwrap_or(u64::MAX).saturating_add(all).saturating_add(own)
    }
}

/// Checks all examples of the file.
pub(super) fn build(
    file: &RuleFile,
    source: RuleText<'_>,
    cost: &ExampleCost,
) -> Result<Vec<Example>, RuleFileError> {
    let ids: Vec<&str> = file.rules.iter().map(|rule| rule.get_ref().id.get_ref().as_str()).collect();
    let order: HashMap<&str, usize> = ids.iter().copied().zip(0..).collect();
    let mut lines = Lines { source, at: 0, line: 1 };
    let of_rules =
        file.rules.iter().enumerate().flat_map(|(index, rule)| {
            rule.get_ref().examples.iter().map(move |example| (Some(index), example))
        });
    let of_all = file.examples.iter().map(|example| (None, example));
    let mut examples = Vec::new();
    let mut steps = 0_u64;
    for (rule, written) in of_rules.chain(of_all) {
        let field = match rule.and_then(|index| ids.get(index)) {
            Some(id) => format!("rules.{id}.examples"),
            None => "examples".to_owned(),
        };
        let builder = ExampleBuilder { source, field, written, ids: &ids, order: &order };
        let example = builder.build(rule, lines.line_of(written.span().start))?;
        steps = steps.saturating_add(cost.of(&example));
        if steps > STEPS_MAX {
            let message =
                format!("the examples up to here take {steps} steps; at most {STEPS_MAX} are allowed");
            return Err(builder.error(written.span(), "", message));
        }
        examples.push(example);
    }
    Ok(examples)
}

struct ExampleBuilder<'a> {
    source: RuleText<'a>,
    field: String,
    written: &'a Spanned<ExampleIn>,
    /// The ids of all rules, in the order of the file.
    ids: &'a [&'a str],
    /// The index of each id.
    order: &'a HashMap<&'a str, usize>,
}

/// Counts lines. Examples are in the order of the file, so the text is not counted again for each of them.
struct Lines<'a> {
    source: RuleText<'a>,
    at: usize,
    line: usize,
}

impl Lines<'_> {
    fn line_of(&mut self, position: usize) -> usize {
        if position < self.at {
            (self.at, self.line) = (0, 1);
        }
        let passed = self.source.0.as_bytes().get(self.at..position).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count();
        self.at = position;
        self.line
    }
}

impl ExampleBuilder<'_> {
    fn error(&self, span: Range<usize>, part: &str, message: impl Into<String>) -> RuleFileError {
        self.source.error(span, format!("{}{part}", self.field), message)
    }

    fn text<T>(
        &self,
        text: &Spanned<String>,
        part: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, RuleFileError> {
        parse(text.get_ref()).map_err(|message| self.error(text.span(), part, message))
    }

    fn build(&self, rule: Option<usize>, line: usize) -> Result<Example, RuleFileError> {
        let written = self.written.get_ref();
        let currency = self.currency()?;
        let account_id = match &written.account_id {
            None => ACCOUNT_DEFAULT.into(),
            Some(id) => self.text(id, ".account_id", |id| {
                AccountId::parse(id).map(|_| id.into()).map_err(|error| error.to_string())
            })?,
        };
        let account_seq = match &written.account_seq {
            None => 1,
            Some(seq) if (1..=i64::MAX / 2).contains(seq.get_ref()) => *seq.get_ref(),
            Some(seq) => return Err(self.error(seq.span(), ".account_seq", "must be at least 1")),
        };
        let balance = match &written.balance {
            None => 0,
            Some(balance) => {
                self.text(balance, ".balance", |balance| minor_units(balance, currency.decimals()))?
            }
        };
        let name = match &written.name {
            Some(name) => {
                self.text(name, ".name", |name| bounded_text(name, DESCRIPTION_LENGTH_MAX).map_err(|e| e.0))?
            }
            None => Box::default(),
        };
        Ok(Example {
            rule,
            name,
            line,
            account_id,
            currency,
            account_seq,
            balance,
            transactions: self.transactions(currency)?,
            expected: self.expected(rule.is_some())?,
        })
    }

    fn currency(&self) -> Result<Currency, RuleFileError> {
        let (code, span) = match &self.written.get_ref().currency {
            None => (CURRENCY_DEFAULT, self.written.span()),
            Some(code) => (code.get_ref().as_str(), code.span()),
        };
        Currency::parse(code)
            .map_err(|_| self.error(span, ".currency", format!("{code} is not an ISO 4217 code")))
    }

    fn expected(&self, is_of_rule: bool) -> Result<Expectation, RuleFileError> {
        let ExampleIn { fires, rules, score, level, .. } = self.written.get_ref();
        match (is_of_rule, fires, rules) {
            (true, None, _) => {
                let message = "is missing; write whether the rule fires for the last transaction";
                return Err(self.error(self.written.span(), ".fires", message));
            }
            (true, _, Some(rules)) => {
                let message = "is for `[[examples]]` of all rules; here write `fires`";
                return Err(self.error(rules.span(), ".rules", message));
            }
            (false, Some(fires), _) => {
                let message =
                    "is for `[[rules.examples]]` of one rule; here write `rules`, `score` or `level`";
                return Err(self.error(fires.span(), ".fires", message));
            }
            (false, None, None) if score.is_none() && level.is_none() => {
                return Err(self.error(self.written.span(), "", "needs `rules`, `score` or `level`"));
            }
            _ => {}
        }
        let score = match score {
            Some(score) if !(0..=100).contains(score.get_ref()) => {
                return Err(self.error(score.span(), ".score", "must be between 0 and 100"));
            }
            score => score.as_ref().map(|score| *score.get_ref()),
        };
        let level = match level {
            None => None,
            Some(text) => Some(self.text(text, ".level", |text| {
                let known = RiskLevel::ALL.map(RiskLevel::as_str);
                RiskLevel::parse(text).ok_or_else(|| {
                    format!("must be low, medium or high{}", did_you_mean(text, known.into_iter()))
                })
            })?),
        };
        let rules = rules.as_ref().map(|rules| self.rule_ids(rules.get_ref())).transpose()?;
        Ok(Expectation { fires: fires.as_ref().map(|fires| *fires.get_ref()), rules, score, level })
    }

    /// Returns the ids in the order of the file.
    fn rule_ids(&self, written: &[Spanned<String>]) -> Result<Vec<String>, RuleFileError> {
        let mut found = Vec::new();
        for id in written {
            let index = self.text(id, ".rules", |id| {
                let known = self.ids.iter().copied();
                self.order
                    .get(id)
                    .copied()
                    .ok_or_else(|| format!("there is no rule {id}{}", did_you_mean(id, known)))
            })?;
            found.push(index);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found.iter().filter_map(|index| self.ids.get(*index)).map(|id| (*id).to_owned()).collect())
    }

    fn transactions(&self, currency: Currency) -> Result<Vec<ExampleTransactions>, RuleFileError> {
        let written = &self.written.get_ref().transactions;
        let start = self.start()?;
        let mut rows = 0_usize;
        let mut transactions: Vec<ExampleTransactions> = Vec::with_capacity(written.get_ref().len());
        for one in written.get_ref() {
            let transaction = self.transaction(one, start, currency)?;
            if transactions.last().is_some_and(|before| before.last_at() > transaction.at) {
                let message = "is before the transaction above it; write transactions in the order of time";
                return Err(self.error(one.get_ref().at.span(), ".transactions.at", message));
            }
            rows = rows.saturating_add(transaction.times);
            if rows > ROWS_MAX {
                let message = format!("has more than {ROWS_MAX} transactions");
                return Err(self.error(one.span(), ".transactions", message));
            }
            transactions.push(transaction);
        }
        if transactions.is_empty() {
            return Err(self.error(written.span(), ".transactions", "is empty; the last one is scored"));
        }
        Ok(transactions)
    }

    fn start(&self) -> Result<DateTime<Utc>, RuleFileError> {
        let Some(start) = &self.written.get_ref().start else {
            return Ok(parse_moment(START_DEFAULT).unwrap_or_default());
        };
        let years = TimeDelta::days(YEARS_MAX * 366);
        moment(*start.get_ref())
            .filter(|at| at.signed_duration_since(DateTime::UNIX_EPOCH).abs() < years)
            .ok_or_else(|| {
                let message = format!("must be a moment with a time zone, such as {START_DEFAULT}");
                self.error(start.span(), ".start", message)
            })
    }

    fn transaction(
        &self,
        written: &Spanned<ExampleTransactionIn>,
        start: DateTime<Utc>,
        currency: Currency,
    ) -> Result<ExampleTransactions, RuleFileError> {
        let input = written.get_ref();
        let amount = match (&input.credit, &input.debit) {
            (Some(credit), None) => self.amount(credit, ".transactions.credit", currency)?,
            (None, Some(debit)) => -self.amount(debit, ".transactions.debit", currency)?,
            _ => {
                let message = "needs either `credit` or `debit`, such as credit = \"125.50\"";
                return Err(self.error(written.span(), ".transactions", message));
            }
        };
        let (times, every) = self.series(input)?;
        let offset = self.duration(&input.at, ".transactions.at")?;
        let at = start.checked_add_signed(offset).unwrap_or(start);
        let bounded = |text: &Option<Spanned<String>>, part: &str, length_max| {
            let check = |text: &str| bounded_text(text, length_max).map_err(|error| error.0);
            text.as_ref().map(|text| self.text(text, part, check)).transpose()
        };
        let metadata = match &input.metadata {
            None => None,
            Some(entries) => {
                Metadata::from_json(entries.get_ref())
                    .map_err(|error| self.error(entries.span(), ".transactions.metadata", error.0))?;
                Some(entries.get_ref().iter().map(|(name, value)| (name.clone(), value.clone())).collect())
            }
        };
        Ok(ExampleTransactions {
            at,
            times,
            every,
            amount,
            counterparty: bounded(
                &input.counterparty,
                ".transactions.counterparty",
                COUNTERPARTY_LENGTH_MAX,
            )?,
            description: bounded(&input.description, ".transactions.description", DESCRIPTION_LENGTH_MAX)?,
            metadata,
            is_reversal: input.is_reversal,
        })
    }

    fn amount(&self, text: &Spanned<String>, part: &str, currency: Currency) -> Result<i64, RuleFileError> {
        self.text(text, part, |text| match minor_units(text, currency.decimals())? {
            amount if amount > 0 => Ok(amount),
            _ => Err("must be more than 0; a debit is written as `debit`".into()),
        })
    }

    fn series(&self, input: &ExampleTransactionIn) -> Result<(usize, TimeDelta), RuleFileError> {
        match (&input.times, &input.every) {
            (None, None) => Ok((1, TimeDelta::zero())),
            (Some(times), Some(every)) if *times.get_ref() > 0 => {
                let times = usize::try_from(*times.get_ref()).unwrap_or(usize::MAX);
                Ok((times, self.duration(every, ".transactions.every")?))
            }
            (Some(times), _) => {
                let message = "must be at least 1, with the time between two, such as every = \"10s\"";
                Err(self.error(times.span(), ".transactions.times", message))
            }
            (None, Some(every)) => {
                let message = "needs `times`, the number of transactions";
                Err(self.error(every.span(), ".transactions.every", message))
            }
        }
    }

    fn duration(&self, text: &Spanned<String>, part: &str) -> Result<TimeDelta, RuleFileError> {
        self.text(text, part, |text| {
            humantime::parse_duration(text)
                .ok()
                .and_then(|duration| TimeDelta::from_std(duration).ok())
                .filter(|duration| *duration <= TimeDelta::days(YEARS_MAX * 366))
                .ok_or_else(|| "must be a duration such as 90s, 36h or 5d".to_owned())
        })
    }
}
