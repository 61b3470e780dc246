//! Tries every rule on made-up transactions before a file is accepted. A failure here would be a dead letter in
//! production. The transactions vary
//! - counterparty and description: present or not,
//! - the metadata entries that the rule names: all present, some missing, of any type,
//! - the decimals of the currency,
//! - amounts and balances: the smallest, the largest, and balances of zero,
//! - the history: empty and full.
//!
//! Deliberately absent: a trial of all combinations. Rules that read the same metadata entries are tried together, and
//! only with those entries. Above a limit of combinations, all entries get the same value.

use std::collections::{BTreeMap, BTreeSet};

use chrono::DateTime;
use serde_json::{Map, Value, json};

use super::{
    AccountHistory, Mode, RuleFileError, Ruleset, Subject,
    observation::Observation,
    rule_file::{RuleFile, RuleText},
    ruleset::{Rule, TrackedText},
};
use crate::domain::{AMOUNT_MINOR_MAX, Currency, format_minor};

/// These currencies have 0, 2, 3 and 4 decimals.
const CURRENCIES_TRIED: [&str; 4] = ["JPY", "EUR", "BHD", "CLF"];
const AMOUNTS_TRIED: [i64; 4] = [1, -1, AMOUNT_MINOR_MAX, -AMOUNT_MINOR_MAX];
/// Enough rows for a sum to reach the limit of `i64`.
const ROWS_TRIED: i64 = 12;
/// The most combinations of metadata entries, over all rules.
const COMBINATIONS_MAX: usize = 1_000;
/// 2026-01-01, a Thursday.
const FIRST_MICROS: i64 = 1_767_225_600_000_000;

type Metadata = Option<Map<String, Value>>;

/// A rule that fails, and the transaction that makes it fail.
struct TrialFailure<'a> {
    rule: &'a str,
    cause: String,
    on: String,
}

/// Refuses the file if a rule that is not off fails on one of the transactions.
pub(super) fn run(ruleset: &Ruleset, file: &RuleFile, source: RuleText<'_>) -> Result<(), RuleFileError> {
    let mut groups: BTreeMap<&BTreeSet<String>, Vec<&Rule>> = BTreeMap::new();
    for rule in ruleset.rules().iter().filter(|rule| rule.mode != Mode::Off) {
        groups.entry(&rule.when.metadata_names).or_default().push(rule);
    }
    let mut combinations_left = COMBINATIONS_MAX;
    for (names, rules) in groups {
        let mut variants = all_at_once(ruleset, names);
        variants.extend(combinations(names).take(combinations_left).map(|entry| {
            combinations_left -= 1;
            Some(entry)
        }));
        for metadata in &variants {
            try_metadata(ruleset, &rules, metadata).map_err(|failure| refused(file, source, &failure))?;
        }
    }
    Ok(())
}

fn try_metadata<'a>(
    ruleset: &Ruleset,
    rules: &[&'a Rule],
    metadata: &Metadata,
) -> Result<(), TrialFailure<'a>> {
    for currency in CURRENCIES_TRIED.iter().filter_map(|code| Currency::parse(code).ok()) {
        for amount in AMOUNTS_TRIED {
            try_account(ruleset, rules, currency, amount, metadata.as_ref())?;
        }
    }
    Ok(())
}

fn try_account<'a>(
    ruleset: &Ruleset,
    rules: &[&'a Rule],
    currency: Currency,
    amount: i64,
    metadata: Option<&Map<String, Value>>,
) -> Result<(), TrialFailure<'a>> {
    let (root, amounts) = (ruleset.root(currency), ruleset.amounts_in(currency));
    let mut history = AccountHistory::new(ruleset);
    // Balances from zero, to zero, and at both limits; each for two rows.
    let furthest = amount.signum() * AMOUNT_MINOR_MAX;
    let balances = [amount, 0, furthest, amount - furthest].map(|balance| [balance; 2]);
    for (account_seq, balance_after) in (1..=ROWS_TRIED).zip(balances.as_flattened().iter().cycle()) {
        let created_at = DateTime::from_timestamp_micros(FIRST_MICROS + account_seq).unwrap_or_default();
        let text = (account_seq % 2 == 0).then_some("trial");
        let subject = Subject {
            account_id: "trial",
            account_seq,
            amount,
            currency,
            balance_after: *balance_after,
            created_at,
            counterparty: text,
            description: text,
            metadata,
            is_reversal: account_seq == 2,
        };
        let features = history.advance(ruleset, amounts, &ruleset.row_of(&subject));
        let observation = Observation::new(ruleset, &subject, &features, amounts);
        for rule in rules {
            let failed = |cause| TrialFailure { rule: &rule.id, cause, on: describe(&subject) };
            rule.when.evaluate(root, &observation).map_err(failed)?;
        }
    }
    Ok(())
}

/// Values of a metadata entry, with the limits of numbers and with zero.
fn values() -> [Value; 8] {
    [json!("trial"), json!("7"), json!(7), json!(0), json!(-1), json!(i64::MIN), json!(i64::MAX), json!(true)]
}

/// Returns no metadata, empty metadata, and all entries with each of the values. Entries that features read are included.
fn all_at_once(ruleset: &Ruleset, names: &BTreeSet<String>) -> Vec<Metadata> {
    let tracked = ruleset.tracked.iter().filter_map(|tracked| match tracked {
        TrackedText::Counterparty => None,
        TrackedText::Metadata(name) => Some(name.to_string()),
    });
    let all: BTreeSet<String> = names.iter().cloned().chain(tracked).collect();
    let same = |value: Value| Some(all.iter().map(|name| (name.clone(), value.clone())).collect());
    let values_tried = if names.is_empty() { 1 } else { usize::MAX };
    [None, Some(Map::new())].into_iter().chain(values().into_iter().take(values_tried).map(same)).collect()
}

/// Returns each entry with each value or missing, while the others are missing, texts or numbers.
fn combinations(names: &BTreeSet<String>) -> impl Iterator<Item = Map<String, Value>> {
    let of_one = |name| values().into_iter().map(Some).chain([None]).map(move |value| (name, value));
    let others = || [None, Some(json!("trial")), Some(json!(7))];
    names.iter().filter(|_| names.len() > 1).flat_map(of_one).flat_map(move |(one, value)| {
        others().into_iter().map(move |other| {
            let value_of = |name: &String| if name == one { value.clone() } else { other.clone() };
            names.iter().filter_map(|name| Some((name.clone(), value_of(name)?))).collect()
        })
    })
}

fn describe(subject: &Subject<'_>) -> String {
    let currency = subject.currency;
    let money = |minor| format_minor(minor, currency);
    let metadata = match subject.metadata {
        None => "without metadata".to_owned(),
        Some(entries) => format!("with metadata {}", Value::Object(entries.clone())),
    };
    let (amount, balance) = (money(subject.amount), money(subject.balance_after));
    format!("a transaction of {amount} {currency} to a balance of {balance}, {metadata}")
}

fn refused(file: &RuleFile, source: RuleText<'_>, failure: &TrialFailure<'_>) -> RuleFileError {
    let TrialFailure { rule, cause, on } = failure;
    let found =
        file.rules.iter().map(|written| written.get_ref()).find(|written| written.id.get_ref() == rule);
    let span = found.map_or(0..0, |written| written.when.span());
    let hint = if cause.contains("No such key") { "; ask has(metadata.NAME) first" } else { "" };
    source.error(span, format!("rules.{rule}.when"), format!("fails on {on}: {cause}{hint}"))
}
