//! The rule file as written: TOML with fixed fields. An error names the line, the field and, for a misspelt name, the
//! nearest correct one. [`super::build`] checks the meaning: whether names exist and expressions compile.

use std::collections::BTreeMap;

use chrono::{DateTime, SubsecRound as _, Utc};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use toml::Spanned;

use crate::domain::parse_moment;

/// The key of the value for all currencies that are not listed.
pub(super) const DEFAULT_CURRENCY: &str = "default";
/// The number of hexadecimal digits of a version.
const VERSION_LENGTH: usize = 12;
/// How many characters of a line are shown with an error.
const EXCERPT_WIDTH: usize = 100;

/// Returns a moment that has a time zone, in whole microseconds. TOML allows a time without seconds.
pub(super) fn moment(mut written: toml::value::Datetime) -> Option<DateTime<Utc>> {
    if let Some(time) = &mut written.time {
        time.second.get_or_insert(0);
    }
    parse_moment(&written.to_string()).map(|at| at.trunc_subsecs(6))
}

/// Why a rule file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {field}: {message}")]
pub struct RuleFileError {
    /// The number of the line, counted from 1.
    pub line: usize,
    /// The number of the character in the line, counted from 1.
    pub column: usize,
    /// The line itself.
    pub text: String,
    /// The field, such as `rules.large_amount.when`.
    pub field: String,
    /// The error, with the correct value if it is known.
    pub message: String,
}

/// The table `[scale]`: factors by currency.
pub(super) type ScaleIn = Spanned<BTreeMap<String, Spanned<String>>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleFile {
    pub history_rows: Option<Spanned<usize>>,
    pub levels: Spanned<LevelsIn>,
    pub scale: Option<ScaleIn>,
    #[serde(default)]
    pub amounts: BTreeMap<String, Spanned<BTreeMap<String, Spanned<String>>>>,
    #[serde(default)]
    pub lists: BTreeMap<String, Spanned<ListIn>>,
    #[serde(default)]
    pub features: BTreeMap<String, Spanned<FeatureIn>>,
    #[serde(default)]
    pub rules: Vec<Spanned<RuleIn>>,
    #[serde(default)]
    pub suppressions: Vec<Spanned<SuppressionIn>>,
    /// Examples of all rules together.
    #[serde(default)]
    pub examples: Vec<Spanned<ExampleIn>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LevelsIn {
    pub medium: i16,
    pub high: i16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListIn {
    pub file: Option<Spanned<String>>,
    pub column: Option<Spanned<String>>,
    pub values: Option<Vec<Spanned<String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FeatureIn {
    pub aggregate: AggregateIn,
    pub of: Option<Spanned<String>>,
    pub window: Option<Spanned<String>>,
    pub include_event: Option<Spanned<bool>>,
    #[serde(default)]
    pub filter: FilterIn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AggregateIn {
    Count,
    Sum,
    Min,
    Max,
    Distinct,
    SecondsSinceLast,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilterIn {
    pub direction: Option<Spanned<String>>,
    pub amount_at_least: Option<Spanned<String>>,
    pub amount_below: Option<Spanned<String>>,
    pub amount_multiple_of: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleIn {
    pub id: Spanned<String>,
    pub when: Spanned<String>,
    pub score: Spanned<i16>,
    pub reason: Spanned<String>,
    pub mode: Option<ModeIn>,
    pub tags: Option<Spanned<Vec<Spanned<String>>>>,
    pub description: Option<Spanned<String>>,
    pub source: Option<Spanned<String>>,
    #[serde(default)]
    pub examples: Vec<Spanned<ExampleIn>>,
}

/// A rule that does not count for some accounts or counterparties until a moment.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SuppressionIn {
    pub rule: Spanned<String>,
    pub account: Option<Spanned<String>>,
    /// The name of a list of accounts.
    pub accounts: Option<Spanned<String>>,
    pub counterparty: Option<Spanned<String>>,
    /// The name of a list of counterparties.
    pub counterparties: Option<Spanned<String>>,
    pub until: Spanned<toml::value::Datetime>,
    pub reason: Spanned<String>,
}

/// Transactions of one account and the expected result of the last one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExampleIn {
    pub name: Option<Spanned<String>>,
    pub transactions: Spanned<Vec<Spanned<ExampleTransactionIn>>>,
    pub currency: Option<Spanned<String>>,
    pub account_id: Option<Spanned<String>>,
    /// The number of the first transaction.
    pub account_seq: Option<Spanned<i64>>,
    /// The balance before the first transaction.
    pub balance: Option<Spanned<String>>,
    /// The moment that the times of the transactions count from.
    pub start: Option<Spanned<toml::value::Datetime>>,
    /// Only for an example of one rule.
    pub fires: Option<Spanned<bool>>,
    /// The live rules that fire. Only for an example of all rules.
    pub rules: Option<Spanned<Vec<Spanned<String>>>>,
    pub score: Option<Spanned<i16>>,
    pub level: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExampleTransactionIn {
    pub at: Spanned<String>,
    pub credit: Option<Spanned<String>>,
    pub debit: Option<Spanned<String>>,
    pub counterparty: Option<Spanned<String>>,
    pub description: Option<Spanned<String>>,
    pub metadata: Option<Spanned<BTreeMap<String, serde_json::Value>>>,
    #[serde(default)]
    pub is_reversal: bool,
    pub times: Option<Spanned<u32>>,
    pub every: Option<Spanned<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ModeIn {
    Live,
    Shadow,
    Off,
}

/// The text of a rule file. Turns positions into line numbers.
#[derive(Clone, Copy)]
pub(super) struct RuleText<'a>(pub &'a str);

impl RuleText<'_> {
    /// Returns an error about the text at `span`.
    pub fn error(
        self,
        span: std::ops::Range<usize>,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> RuleFileError {
        let before = self.0.get(..span.start).unwrap_or(self.0);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(start..).map_or(0, |part| part.chars().count()) + 1;
        let text = self.0.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default().to_owned();
        RuleFileError { line, column, text, field: field.into(), message: message.into() }
    }

    /// Returns an error about the byte `at` of a text of the file. If the text has escapes, its own position is given.
    pub fn error_within(
        self,
        text: &Spanned<String>,
        at: usize,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> RuleFileError {
        let span = text.span();
        let written = self.0.get(span.clone()).unwrap_or_default();
        let offset = written.find(text.get_ref().as_str()).map_or(0, |start| start + at);
        self.error(span.start + offset..span.end, field, message)
    }
}

impl RuleFileError {
    /// Returns the line with a mark below the position.
    pub fn excerpt(&self) -> String {
        let (number, column) = (self.line.to_string(), self.column);
        // Long lines are cut to the part around the position.
        let from = column.saturating_sub(EXCERPT_WIDTH / 2);
        let shown: String = self.text.chars().skip(from).take(EXCERPT_WIDTH).collect();
        let shown = shown.replace(|character: char| character.is_control(), " ");
        let (empty, mark) = (" ".repeat(number.len()), " ".repeat(column.saturating_sub(from + 1)));
        format!("{empty} |\n{number} | {shown}\n{empty} | {mark}^")
    }
}

/// The key of examples, in a rule and at the top of the file.
const EXAMPLES: &str = "examples";

/// Parses the file. The hash is that of its content with its keys sorted and without its examples, so comments, white
/// space, the order of keys and examples do not change it.
pub(super) fn read(text: &str) -> Result<(RuleFile, Sha256), RuleFileError> {
    let source = RuleText(text);
    let refused = |error: toml::de::Error| {
        let message = with_nearest(error.message());
        source.error(error.span().unwrap_or(0..0), field_of(text, error.span()), message)
    };
    let file = toml::from_str::<RuleFile>(text).map_err(refused)?;
    let mut table = toml::from_str::<toml::Table>(text).map_err(refused)?;
    table.remove(EXAMPLES);
    let rules = table.get_mut("rules").and_then(toml::Value::as_array_mut);
    for rule in rules.into_iter().flatten().filter_map(toml::Value::as_table_mut) {
        rule.remove(EXAMPLES);
    }
    let canonical = serde_json::to_value(table).map(|value| sorted(value).to_string()).unwrap_or_default();
    Ok((file, Sha256::new_with_prefix(canonical)))
}

/// Returns the first digits of the hash.
pub(super) fn version_of(content: Sha256) -> String {
    let hex: String = content.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    hex.chars().take(VERSION_LENGTH).collect()
}

fn sorted(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(entries) => {
            let entries: BTreeMap<_, _> = entries.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        scalar => scalar,
    }
}

/// Returns the line at `span`, as the name of a field that serde could not parse.
fn field_of(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let Some(span) = span else { return "rule file".into() };
    let start = text.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default().trim();
    if line.is_empty() { "rule file".into() } else { format!("`{line}`") }
}

/// Adds a suggestion to serde's "unknown field `x`, expected one of `a`, `b`".
fn with_nearest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match (message.starts_with("unknown"), quoted.next()) {
        (true, Some(unknown)) => format!("{message}{}", did_you_mean(unknown, quoted)),
        _ => message.to_owned(),
    }
}

/// Checks the name of an amount, a feature or a list. The error text is for the analyst.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(is_word) {
        return Ok(());
    }
    Err("a name consists of a-z, 0-9 and _, and begins with a letter")
}

/// Returns `; did you mean …?` with the nearest known name, or nothing if no name is known.
pub(super) fn did_you_mean<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .max_by(|a, b| strsim::jaro_winkler(a, written).total_cmp(&strsim::jaro_winkler(b, written)))
        .map(|nearest| format!("; did you mean {nearest}?"))
        .unwrap_or_default()
}
