//! `RiskAssessed.v1`: one for each live assessment.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The CloudEvents type.
pub const RISK_ASSESSED: &str = "RiskAssessed.v1";

/// One rule that fired, with the observed values in its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RiskReason {
    /// The rule's id.
    pub rule: String,
    /// What it added.
    pub score: i16,
    /// Why, for a person.
    pub reason: String,
}

/// The JSON of the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RiskAssessed {
    /// Equal to the header `ce_id`.
    pub event_id: Uuid,
    /// The assessed ledger row.
    pub transaction_id: Uuid,
    /// Also the record key.
    pub account_id: String,
    /// Of the assessed row.
    pub account_seq: i64,
    /// 0–100.
    pub risk_score: i16,
    /// `low`, `medium` or `high`.
    pub risk_level: String,
    /// Live rules that fired.
    pub reasons: Vec<RiskReason>,
    /// Shadow rules that would have fired.
    pub shadow_reasons: Vec<RiskReason>,
    /// Content hash of the rule file.
    pub ruleset: String,
    /// UTC, microseconds.
    #[serde(serialize_with = "super::serialize_moment")]
    pub assessed_at: DateTime<Utc>,
}
