//! Scores the assessed transactions again with the rules of their stored version, and compares the results.
//!
//! Transactions are read account by account in the order of their numbers. So the history of one account for each rule
//! file is all that is kept in memory.

use std::collections::BTreeSet;

use indicatif::ProgressBar;
use serde_json::{Map, Value};

use super::report::Check;
use crate::{
    domain::Currency,
    repository::{
        Connection,
        verification::{self, Example, Findings, ScoredRow},
    },
    risk::{AccountHistory, Assessment, Ruleset, Subject},
};

const PAGE_ROWS_MAX: i64 = 5_000;
/// How many versions without a rule file are named.
const VERSIONS_SHOWN_MAX: usize = 5;

/// Scores all transactions whose assessment names one of `rulesets`.
pub(super) async fn check(
    connection: &mut Connection,
    rulesets: Vec<Ruleset>,
    bar: &ProgressBar,
) -> anyhow::Result<Check> {
    let mut rescoring = Rescoring { rulesets, ..Rescoring::default() };
    let (mut account_id, mut account_seq) = (String::new(), 0);
    loop {
        let rows = verification::scored_rows(connection, &account_id, account_seq, PAGE_ROWS_MAX).await?;
        let Some(last) = rows.last() else { break };
        account_id.clone_from(&last.account_id);
        account_seq = last.account_seq;
        for row in &rows {
            rescoring.add(row);
        }
        bar.set_message(format!("the scores, {} transactions", rescoring.checked));
        tokio::task::yield_now().await;
    }
    Ok(rescoring.into_check())
}

#[derive(Default)]
struct Rescoring {
    rulesets: Vec<Ruleset>,
    /// The account whose history is kept.
    account_id: String,
    /// The history of that account for each rule set.
    histories: Vec<AccountHistory>,
    checked: i64,
    differing: Findings,
    /// Assessments of versions without a rule file.
    unchecked: i64,
    unknown_versions: BTreeSet<String>,
}

impl Rescoring {
    fn add(&mut self, row: &ScoredRow) {
        if self.account_id != row.account_id || self.histories.is_empty() {
            self.account_id.clone_from(&row.account_id);
            self.histories = self.rulesets.iter().map(AccountHistory::new).collect();
        }
        let metadata = row.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let subject = match subject(row, metadata.as_ref()) {
            Some(subject) => subject,
            None => {
                self.differing.push(|| example(row, "cannot be scored: its account or currency is unknown"));
                return;
            }
        };
        let mut is_known = false;
        for (ruleset, history) in self.rulesets.iter().zip(&mut self.histories) {
            if row.ruleset.as_deref() != Some(&*ruleset.version()) {
                ruleset.remember(history, &subject);
                continue;
            }
            is_known = true;
            self.checked += 1;
            let difference = match ruleset.score(history, &subject) {
                Ok(assessment) => difference(row, &assessment),
                Err(error) => Some(format!("cannot be scored: {error}")),
            };
            if let Some(difference) = difference {
                self.differing.push(|| example(row, &difference));
            }
        }
        if let (false, Some(version)) = (is_known, &row.ruleset) {
            self.unchecked += 1;
            if self.unknown_versions.len() < VERSIONS_SHOWN_MAX {
                self.unknown_versions.insert(version.clone());
            }
        }
    }

    fn into_check(self) -> Check {
        let check = Check::of(
            "rescored",
            "score, level, reasons and rule errors are those of the rule set that the assessment names",
            self.checked,
            self.differing,
        );
        if self.unchecked == 0 {
            return check;
        }
        let versions: Vec<String> = self.unknown_versions.into_iter().collect();
        check.with_note(format!(
            "{} assessments not checked: of rule set {}; give its file with --rules",
            self.unchecked,
            versions.join(", ")
        ))
    }
}

/// Returns the transaction as the rules see it; None without a known currency.
fn subject<'a>(row: &'a ScoredRow, metadata: Option<&'a Map<String, Value>>) -> Option<Subject<'a>> {
    Some(Subject {
        account_id: &row.account_id,
        account_seq: row.account_seq,
        amount: row.amount,
        currency: Currency::parse(row.currency.as_deref()?).ok()?,
        balance_after: row.balance_after,
        created_at: row.created_at,
        counterparty: row.counterparty.as_deref(),
        description: row.description.as_deref(),
        metadata,
        is_reversal: row.reverses.is_some(),
    })
}

/// Returns the fields in which the stored assessment differs from the new one, with both values.
fn difference(row: &ScoredRow, expected: &Assessment) -> Option<String> {
    let json = |reasons| serde_json::to_string(reasons).unwrap_or_default();
    let rule_errors = match expected.rule_errors.as_slice() {
        [] => None,
        errors => Some(serde_json::to_string(errors).unwrap_or_default()),
    };
    let fields = [
        ("score", row.risk_score.map(|score| score.to_string()), Some(expected.risk_score.to_string())),
        ("level", row.risk_level.clone(), Some(expected.risk_level.as_str().to_owned())),
        ("reasons", row.reasons.clone(), Some(json(&expected.reasons))),
        ("shadow reasons", row.shadow_reasons.clone(), Some(json(&expected.shadow_reasons))),
        ("rule errors", row.rule_errors.clone(), rule_errors),
    ];
    let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    let differing: Vec<String> = fields
        .into_iter()
        .filter(|(_, found, expected)| found != expected)
        .map(|(field, found, expected)| format!("{field} {} instead of {}", text(found), text(expected)))
        .collect();
    (!differing.is_empty()).then(|| format!("differs from its rule set: {}", differing.join(", ")))
}

fn example(row: &ScoredRow, difference: &str) -> Example {
    let ScoredRow { account_id, account_seq, transaction_id, .. } = row;
    let text = format!("the assessment of transaction {account_seq} of account {account_id} {difference}");
    let ruleset = row.ruleset.as_deref();
    Example::new(text)
        .with("account_id", account_id.as_str())
        .with("account_seq", *account_seq)
        .with("transaction_id", transaction_id.to_string())
        .with("ruleset", ruleset)
}
