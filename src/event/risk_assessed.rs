//! The event `RiskAssessed.v1`, published once for each assessment.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The CloudEvents type.
pub const RISK_ASSESSED: &str = "RiskAssessed.v1";

/// A rule that fired. The text contains the observed values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RiskReason {
    /// The rule's id.
    pub rule: String,
    /// The score of the rule. Live rules add it.
    pub score: i16,
    /// The explanation for a person.
    pub reason: String,
    /// Why the rule adds nothing here: it is suppressed for the account or the counterparty. Absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub suppressed: Option<RuleSuppressed>,
}

/// The suppression of a rule for an account or a counterparty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleSuppressed {
    /// The first moment for which the rule counts again. The time of the transaction decides.
    #[schema(value_type = DateTime<Utc>)]
    pub until: String,
    /// The reason in the rule file.
    pub reason: String,
}

/// A rule that failed on a transaction. It counts as not fired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleError {
    /// The rule's id.
    pub rule: String,
    /// `live` or `shadow`.
    pub mode: String,
    /// Why it failed.
    pub error: String,
}

/// The JSON of the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RiskAssessed {
    /// The id of the event, equal to the header `ce_id`.
    pub event_id: Uuid,
    /// The assessed transaction.
    pub transaction_id: Uuid,
    /// The account, which is also the record key.
    pub account_id: String,
    /// The number of the transaction in its account.
    pub account_seq: i64,
    /// The score, 0 to 100.
    pub risk_score: i16,
    /// `low`, `medium` or `high`.
    pub risk_level: String,
    /// Live rules that fired.
    pub reasons: Vec<RiskReason>,
    /// Rules that fired but add nothing: rules in shadow mode, and live rules that are suppressed.
    pub shadow_reasons: Vec<RiskReason>,
    /// Rules that failed. They count as not fired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rule_errors: Vec<RuleError>,
    /// The version of the rule set: a hash of its content.
    pub ruleset: String,
    /// The time of the assessment, in UTC with microseconds.
    #[serde(serialize_with = "super::serialize_moment")]
    pub assessed_at: DateTime<Utc>,
}
