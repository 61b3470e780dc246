//! Scores one transaction with the rules.

use std::sync::Arc;

use super::{AccountHistory, Mode, Ruleset, observation::Observation, subject::Subject};
use crate::{domain::RiskLevel, event::RiskReason};

/// The highest total score.
const SCORE_MAX: i16 = 100;

/// The result of scoring one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// The sum of the scores of the live rules that fired, at most 100.
    pub risk_score: i16,
    /// The level by the thresholds of the rule file.
    pub risk_level: RiskLevel,
    /// The live rules that fired, in the order of the file.
    pub reasons: Vec<RiskReason>,
    /// The shadow rules that fired.
    pub shadow_reasons: Vec<RiskReason>,
    /// The version of the rules.
    pub ruleset: Arc<str>,
}

/// Why there is no assessment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// An expression failed on this transaction. It fails the same way at each attempt.
    #[error("rule {rule}: {cause}")]
    Rule {
        /// The rule's id.
        rule: String,
        /// The error of the expression.
        cause: String,
    },
    /// The history already holds this row or a later one. This is a bug of the caller.
    #[error("transaction {account_seq} cannot be scored: the history already ends at {last}")]
    NotNext {
        /// The `account_seq` of the transaction.
        account_seq: i64,
        /// The `account_seq` of the history's last row.
        last: i64,
    },
}

impl Ruleset {
    /// Scores the transaction with the history of its account and adds it to that history. If a rule fails, the row is
    /// added too, because it is in the ledger nevertheless.
    pub fn score(
        &self,
        history: &mut AccountHistory,
        subject: &Subject<'_>,
    ) -> Result<Assessment, ScoreError> {
        let last = history.last_account_seq();
        if last >= subject.account_seq {
            return Err(ScoreError::NotNext { account_seq: subject.account_seq, last });
        }
        let amounts = self.amounts_in(subject.currency);
        let features = history.advance(self, amounts, &self.row_of(subject));
        let observation = Observation::new(self, subject, &features, amounts);
        self.assess(&observation)
    }

    /// Adds a row to the history without scoring it, because it already has an assessment. A row that does not come after
    /// the rows in the history is ignored.
    pub fn remember(&self, history: &mut AccountHistory, subject: &Subject<'_>) {
        if history.last_account_seq() < subject.account_seq {
            history.advance(self, self.amounts_in(subject.currency), &self.row_of(subject));
        }
    }

    fn assess(&self, observation: &Observation<'_>) -> Result<Assessment, ScoreError> {
        let root = self.root(observation.subject.currency);
        let mut total = 0_i16;
        let (mut reasons, mut shadow_reasons) = (Vec::new(), Vec::new());
        for rule in self.rules().iter().filter(|rule| rule.mode != Mode::Off) {
            let fired = rule
                .when
                .evaluate(root, observation)
                .map_err(|cause| ScoreError::Rule { rule: rule.id.to_string(), cause })?;
            if !fired {
                continue;
            }
            let reason = rule
                .reason
                .fill(|symbol| observation.text_of(symbol), |name| observation.metadata_text(name));
            let reason = RiskReason { rule: rule.id.to_string(), score: rule.score, reason };
            match rule.mode {
                Mode::Live => {
                    total = total.saturating_add(rule.score).min(SCORE_MAX);
                    reasons.push(reason);
                }
                Mode::Shadow | Mode::Off => shadow_reasons.push(reason),
            }
        }
        Ok(Assessment {
            risk_score: total,
            risk_level: self.level_of(total),
            reasons,
            shadow_reasons,
            ruleset: self.version(),
        })
    }
}
