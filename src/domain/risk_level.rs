//! The risk level of a transaction.

use serde::Serialize;
use utoipa::ToSchema;

/// How risky the rules found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RiskLevel {
    /// Below `levels.medium`.
    Low,
    /// From `levels.medium` on.
    Medium,
    /// From `levels.high` on.
    High,
}

impl RiskLevel {
    /// Parses `low`, `medium` or `high`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Low, Self::Medium, Self::High].into_iter().find(|level| level.as_str() == text)
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

/// A level, or not assessed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RiskState {
    /// Assessed as low.
    Low,
    /// Assessed as medium.
    Medium,
    /// Assessed as high.
    High,
    /// Not assessed yet.
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
