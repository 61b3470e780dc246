//! One record through the decisions of the role, outside of any partition: for a dead letter that is tried again.
//!
//! Guarantees: the same decoding, the same check against the ledger, the same history and rules as in the role, so a
//! replayed event gets the assessment that it would have had; what is written is one live assessment per transaction
//! and its announcement, whatever the role does at the same moment. Deliberately absent: a lease and a position, which
//! a record that the partition has passed needs no more.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{
    assess::{LedgerLookup, assess},
    cache::HistoryCache,
    decode::{RecordFault, decode},
    reader::DecodedRecord,
};
use crate::{
    broker::FetchedRecord,
    repository::{Connection, RepositoryError, assessments},
    risk::Ruleset,
};

/// What the handler says about a record.
pub enum RetriedRecord {
    /// It can be handled: this is to be written.
    Assessed(UnwrittenAssessment),
    /// Its transaction has its assessment.
    AlreadyAssessed,
    /// It cannot be handled.
    Failed {
        /// What was being done: `decode`, `ledger`, `score`.
        stage: &'static str,
        /// A word for metrics and filters.
        reason: &'static str,
        /// For a person.
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
    /// Writes it and its announcement, in the caller's transaction. False if somebody else was quicker.
    pub async fn write(&self, connection: &mut Connection) -> Result<bool, RepositoryError> {
        let written = assessments::record(connection, &self.rows, &self.ruleset, self.assessed_at).await?;
        Ok(!written.is_empty())
    }

    /// What the rules say, for people: level and score.
    pub fn summary(&self) -> String {
        self.rows.iter().map(|row| format!("{} {}", row.risk_level, row.risk_score)).collect()
    }
}

/// Runs one record through the handler; writes nothing.
pub async fn retry_record(
    connection: &mut Connection,
    ruleset: &Ruleset,
    record: FetchedRecord,
) -> Result<RetriedRecord, RepositoryError> {
    let records = [DecodedRecord { event: decode(&record), record }];
    let assessed =
        assess(connection, ruleset, &mut HistoryCache::default(), &records, LedgerLookup::Full).await?;
    Ok(match assessed.fault {
        Some(RecordFault { stage, reason, error }) => RetriedRecord::Failed { stage, reason, error },
        None if assessed.duplicates > 0 => RetriedRecord::AlreadyAssessed,
        None => RetriedRecord::Assessed(UnwrittenAssessment {
            rows: assessed.rows,
            ruleset: ruleset.version(),
            assessed_at: assessed.assessed_at,
        }),
    })
}
