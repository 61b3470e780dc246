//! Scores one transaction with the rules.

use std::sync::Arc;

use super::{
    AccountHistory, Mode, Ruleset, observation::Observation, subject::Subject, suppression::suppressed,
};
use crate::{
    domain::RiskLevel,
    event::{RiskReason, RuleError},
};

/// The lowest and the highest total score.
const SCORE_MIN: i16 = 0;
const SCORE_MAX: i16 = 100;
/// How many failing rules an assessment names.
const ERRORS_MAX: usize = 20;

/// The result of scoring one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// The sum of the scores of the live rules that fired, at least 0 and at most 100.
    pub risk_score: i16,
    /// The level by the thresholds of the rule file.
    pub risk_level: RiskLevel,
    /// The live rules that fired, in the order of the file.
    pub reasons: Vec<RiskReason>,
    /// The shadow rules that fired, and the live rules that fired but are suppressed.
    pub shadow_reasons: Vec<RiskReason>,
    /// The rules that failed, at most the first 20. A rule that fails counts as not fired.
    pub rule_errors: Vec<RuleError>,
    /// The version of the rules.
    pub ruleset: Arc<str>,
}

/// The history already holds this row or a later one. This is a bug of the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("transaction {account_seq} cannot be scored: the history already ends at {last}")]
pub struct NotNext {
    /// The `account_seq` of the transaction.
    pub account_seq: i64,
    /// The `account_seq` of the history's last row.
    pub last: i64,
}

impl Ruleset {
    /// Scores the transaction with the history of its account and adds it to that history. A rule that fails is noted in
    /// the assessment; the other rules count.
    pub fn score(&self, history: &mut AccountHistory, subject: &Subject<'_>) -> Result<Assessment, NotNext> {
        let last = history.last_account_seq();
        if last >= subject.account_seq {
            return Err(NotNext { account_seq: subject.account_seq, last });
        }
        let amounts = self.amounts_in(subject.currency);
        let features = history.advance(self, amounts, &self.row_of(subject));
        let observation = Observation::new(self.features(), subject, &features, amounts);
        Ok(self.assess(&observation))
    }

    /// Adds a row to the history without scoring it, because it already has an assessment. A row that does not come after
    /// the rows in the history is ignored.
    pub fn remember(&self, history: &mut AccountHistory, subject: &Subject<'_>) {
        if history.last_account_seq() < subject.account_seq {
            history.advance(self, self.amounts_in(subject.currency), &self.row_of(subject));
        }
    }

    pub(super) fn assess(&self, observation: &Observation<'_>) -> Assessment {
        // Scores may be negative. Only the whole sum is limited, so that the order of the rules does not matter.
        let mut total = 0_i16;
        let (mut reasons, mut shadow_reasons, mut rule_errors) = (Vec::new(), Vec::new(), Vec::new());
        for rule in self.rules().iter().filter(|rule| rule.mode != Mode::Off) {
            match rule.when.evaluate(observation) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    if rule_errors.len() < ERRORS_MAX {
                        let mode = rule.mode.as_str().to_owned();
                        rule_errors.push(RuleError { rule: rule.id.to_string(), mode, error });
                    }
                    continue;
                }
            }
            let reason = rule
                .reason
                .fill(|symbol| observation.text_of(symbol), |name| observation.metadata_text(name));
            let suppressed = suppressed(&rule.suppressions, observation.subject);
            let is_suppressed = suppressed.is_some();
            let reason = RiskReason { rule: rule.id.to_string(), score: rule.score, reason, suppressed };
            match rule.mode {
                Mode::Live if !is_suppressed => {
                    total = total.saturating_add(rule.score);
                    reasons.push(reason);
                }
                _ => shadow_reasons.push(reason),
            }
        }
        let total = total.clamp(SCORE_MIN, SCORE_MAX);
        Assessment {
            risk_score: total,
            risk_level: self.level_of(total),
            reasons,
            shadow_reasons,
            rule_errors,
            ruleset: self.version(),
        }
    }
}
