//! Tries every rule on made-up transactions before a file is accepted: with and without counterparty and metadata,
//! every number of decimals, the largest and the smallest amounts, empty and full histories. What fails here would
//! have become a dead letter in production.

use chrono::DateTime;
use serde_json::{Map, Value, json};

use super::{
    AccountHistory, Mode, RuleFileError, Ruleset, ScoreError, Subject,
    rule_file::{RuleFile, Source},
};
use crate::domain::{AMOUNT_MINOR_MAX, Currency};

/// Currencies with 0, 2, 3 and 4 decimals.
const CURRENCIES_TRIED: [&str; 4] = ["JPY", "EUR", "BHD", "CLF"];
/// More than any of it: enough for a sum to reach the end of `i64`.
const ROWS_TRIED: i64 = 12;
/// 2026-01-01, a Thursday.
const FIRST_MICROS: i64 = 1_767_225_600_000_000;

/// Refuses the file if a rule that is not off fails on any of them.
pub(super) fn run(ruleset: &Ruleset, file: &RuleFile, source: Source<'_>) -> Result<(), RuleFileError> {
    let metadata = metadata_variants(ruleset);
    for currency in CURRENCIES_TRIED.iter().filter_map(|code| Currency::parse(code).ok()) {
        for amount in [1, -1, AMOUNT_MINOR_MAX, -AMOUNT_MINOR_MAX] {
            for metadata in &metadata {
                try_account(ruleset, currency, amount, metadata.as_ref())
                    .map_err(|error| refused(file, source, &error, currency, metadata.as_ref()))?;
            }
        }
    }
    Ok(())
}

fn try_account(
    ruleset: &Ruleset,
    currency: Currency,
    amount: i64,
    metadata: Option<&Map<String, Value>>,
) -> Result<(), ScoreError> {
    let mut history = AccountHistory::new(ruleset);
    for account_seq in 1..=ROWS_TRIED {
        let created_at = DateTime::from_timestamp_micros(FIRST_MICROS + account_seq).unwrap_or_default();
        let text = (account_seq % 2 == 0).then_some("trial");
        let subject = Subject {
            account_id: "trial",
            account_seq,
            amount,
            currency,
            balance_after: amount,
            created_at,
            counterparty: text,
            description: text,
            metadata,
            is_reversal: account_seq == 2,
        };
        ruleset.score(&mut history, &subject)?;
    }
    Ok(())
}

/// None, empty, and all names that the rules mention as a text, a number and a truth value.
fn metadata_variants(ruleset: &Ruleset) -> Vec<Option<Map<String, Value>>> {
    let live = ruleset.rules().iter().filter(|rule| rule.mode != Mode::Off);
    let names: Vec<&String> = live.flat_map(|rule| &rule.when.metadata_names).collect();
    let all = |value: Value| Some(names.iter().map(|name| ((*name).clone(), value.clone())).collect());
    let mut variants = vec![None, Some(Map::new())];
    if !names.is_empty() {
        variants.extend([all(json!("trial")), all(json!("7")), all(json!(7)), all(json!(true))]);
    }
    variants
}

fn refused(
    file: &RuleFile,
    source: Source<'_>,
    error: &ScoreError,
    currency: Currency,
    metadata: Option<&Map<String, Value>>,
) -> RuleFileError {
    let on = match metadata {
        None => format!("a transaction in {currency} without metadata"),
        Some(entries) => {
            format!("a transaction in {currency} with metadata {}", Value::Object(entries.clone()))
        }
    };
    let ScoreError::Rule { rule, cause } = error else {
        return source.error(0..0, "rule file", error.to_string());
    };
    let found =
        file.rules.iter().map(|written| written.get_ref()).find(|written| written.id.get_ref() == rule);
    let span = found.map_or(0..0, |written| written.when.span());
    let hint = if cause.contains("No such key") { "; ask has(metadata.NAME) first" } else { "" };
    source.error(span, format!("rules.{rule}.when"), format!("fails on {on}: {cause}{hint}"))
}
