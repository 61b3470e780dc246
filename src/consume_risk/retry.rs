//! Handles one record as the role does, but outside any partition: `ledger dlq replay` retries dead letters with it.
//!
//! Guarantees:
//! - Decoding, the comparison with the ledger, history and rules are those of the role.
//! - A transaction gets one assessment and one RiskAssessed event, whatever the role does at the same time.
//!
//! Deliberately absent: a lease and a position, because the partition has already passed the record.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{
    assess::{LedgerLookup, assess},
    cache::HistoryCache,
    decode::{RecordFault, decode},
    memory_budget::HistoryShare,
    reader::DecodedRecord,
};
use crate::{
    broker::FetchedRecord,
    repository::{Connection, RepositoryError, assessments},
    risk::Ruleset,
};

/// The result of a retry.
pub enum RetriedRecord {
    /// The record can be handled. The caller writes the assessment.
    Assessed(UnwrittenAssessment),
    /// Its transaction already has an assessment.
    AlreadyAssessed,
    /// The record still cannot be handled.
    Failed {
        /// The stage that failed: `decode` or `ledger`.
        stage: &'static str,
        /// The reason as a label for metrics and filters.
        reason: &'static str,
        /// The reason as text.
        error: String,
    },
}

/// An assessment that is not written yet.
pub struct UnwrittenAssessment {
    rows: Vec<assessments::NewAssessment>,
    ruleset: Arc<str>,
    assessed_at: DateTime<Utc>,
}

impl UnwrittenAssessment {
    /// Writes the assessment and its event in the caller's database transaction. Returns false if the transaction
    /// already has an assessment.
    pub async fn write(&self, connection: &mut Connection) -> Result<bool, RepositoryError> {
        let written = assessments::record(connection, &self.rows, &self.ruleset, self.assessed_at).await?;
        Ok(!written.is_empty())
    }

    /// Returns level and score as text.
    pub fn summary(&self) -> String {
        self.rows.iter().map(|row| format!("{} {}", row.risk_level, row.risk_score)).collect()
    }
}

/// Assesses one record. Writes nothing.
pub async fn retry_record(
    connection: &mut Connection,
    ruleset: &Ruleset,
    record: FetchedRecord,
) -> Result<RetriedRecord, RepositoryError> {
    let event = match decode(&record) {
        Ok(event) => Ok(event),
        Err(fault) => return Ok(failed(fault)),
    };
    let records = [DecodedRecord { event, record }];
    // The one account is kept without a share of the memory.
    let mut cache = HistoryCache::new(HistoryShare::default());
    let assessed = assess(connection, ruleset, &mut cache, &records, LedgerLookup::Full).await?;
    Ok(match assessed.fault {
        Some(fault) => failed(fault),
        None if assessed.duplicates > 0 => RetriedRecord::AlreadyAssessed,
        None => RetriedRecord::Assessed(UnwrittenAssessment {
            rows: assessed.rows,
            ruleset: ruleset.version(),
            assessed_at: assessed.assessed_at,
        }),
    })
}

fn failed(RecordFault { stage, reason, error }: RecordFault) -> RetriedRecord {
    RetriedRecord::Failed { stage, reason, error }
}
