//! The risk level of a transaction, in the words of the API and of the database.

use serde::Serialize;
use utoipa::ToSchema;

/// The risk level of an assessment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RiskLevel {
    /// The score is below `levels.medium` of the rule file.
    Low,
    /// The score is at least `levels.medium`.
    Medium,
    /// The score is at least `levels.high`.
    High,
}

impl RiskLevel {
    /// All levels, from the lowest on.
    pub const ALL: [Self; 3] = [Self::Low, Self::Medium, Self::High];

    /// Parses `low`, `medium` or `high`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }

    /// Returns `low`, `medium` or `high`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl std::fmt::Display for RiskLevel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The risk level of a transaction, or that it has no assessment yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RiskState {
    /// The level of the assessment is low.
    Low,
    /// The level of the assessment is medium.
    Medium,
    /// The level of the assessment is high.
    High,
    /// There is no assessment yet.
    Pending,
}

impl RiskState {
    /// Parses `low`, `medium`, `high` or `pending`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Low, Self::Medium, Self::High, Self::Pending].into_iter().find(|state| state.as_str() == text)
    }

    /// Returns `low`, `medium`, `high` or `pending`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Pending => "pending",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_the_same_in_json_and_as_text() {
        for text in ["low", "medium", "high"] {
            let level = RiskLevel::parse(text).expect("a level");
            assert_eq!(serde_json::to_value(level).expect("JSON"), level.as_str());
        }
        for text in ["low", "medium", "high", "pending"] {
            let state = RiskState::parse(text).expect("a state");
            assert_eq!(serde_json::to_value(state).expect("JSON"), state.as_str());
        }
        assert_eq!((RiskLevel::parse("pending"), RiskState::parse("none")), (None, None));
    }
}
