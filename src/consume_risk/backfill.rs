//! Assesses transactions whose events are lost, for example after an operator moved a position past them.
//!
//! Guarantees:
//! - Each row is turned back into its event and handled as in the role, so its assessment is the same.
//! - A transaction gets one assessment and one RiskAssessed event, whatever the role does at the same time.
//!
//! Deliberately absent: a lease and a position, because no record is consumed.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    assess::{LedgerLookup, assess},
    cache::HistoryCache,
    decode::{RecordFault, decode},
    memory_budget::MemoryBudget,
    reader::DecodedRecord,
};
use crate::{
    broker::FetchedRecord,
    config::Risk,
    domain::{RiskLevel, Transaction},
    event::{TRANSACTION_CREATED, cloud_event_headers, encode_transaction_created},
    repository::{Connection, RepositoryError, assessments, transaction},
    risk::Ruleset,
};

/// A transaction that cannot be assessed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillFailure {
    /// The transaction.
    pub transaction_id: Uuid,
    /// The reason, as text.
    pub error: String,
}

/// The result of a backfill, or the expected result in a dry run.
#[derive(Debug, Default)]
pub struct Backfilled {
    /// Assessments written, by level.
    pub assessed: BTreeMap<RiskLevel, i64>,
    /// Transactions that the role or another backfill assessed in the meantime.
    pub already: i64,
    /// Transactions that stay without an assessment.
    pub failing: Vec<BackfillFailure>,
}

/// Assesses transactions batch by batch. Keeps account histories between the batches.
pub struct Backfill {
    ruleset: Ruleset,
    cache: HistoryCache,
    is_dry_run: bool,
}

impl Backfill {
    /// Creates a backfill. A dry run scores all transactions and writes nothing.
    pub fn new(ruleset: Ruleset, config: &Risk, is_dry_run: bool) -> Self {
        let memory = MemoryBudget::new(config.history_bytes_max());
        Self { ruleset, cache: HistoryCache::new(memory.share()), is_dry_run }
    }

    /// Assesses transactions, in one commit or a few. The transactions of an account must be in `account_seq` order.
    pub async fn assess(
        &mut self,
        connection: &mut Connection,
        rows: &[Transaction],
    ) -> Result<Backfilled, RepositoryError> {
        let mut done = Backfilled::default();
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            let record = record_of(row)?;
            match decode(&record) {
                Ok(event) => records.push(DecodedRecord { event: Ok(event), record }),
                Err(fault) => {
                    done.failing.push(BackfillFailure { transaction_id: row.id, error: fault.error });
                }
            }
        }
        let mut rest = records.as_slice();
        while let Some(first) = rest.first() {
            let assessed =
                assess(connection, &self.ruleset, &mut self.cache, rest, LedgerLookup::Full).await?;
            let expected = i64::try_from(assessed.rows.len()).unwrap_or(i64::MAX);
            let written = self.write(connection, &assessed.rows, assessed.assessed_at).await?;
            let fresh: i64 = written.iter().map(|(_, count)| count).sum();
            for (level, count) in written {
                *done.assessed.entry(level).or_default() += count;
            }
            done.already += i64::try_from(assessed.duplicates).unwrap_or(i64::MAX) + expected - fresh;
            let mut handled = assessed.handled;
            if let Some(RecordFault { error, .. }) = assessed.fault {
                let id = rest
                    .get(handled)
                    .unwrap_or(first)
                    .event
                    .as_ref()
                    .map(|event| event.created.transaction_id);
                done.failing.push(BackfillFailure { transaction_id: id.unwrap_or_default(), error });
                handled += 1;
            }
            rest = rest.get(handled..).unwrap_or_default();
        }
        Ok(done)
    }

    async fn write(
        &self,
        connection: &mut Connection,
        rows: &[assessments::NewAssessment],
        assessed_at: chrono::DateTime<chrono::Utc>,
    ) -> Result<Vec<(RiskLevel, i64)>, RepositoryError> {
        if self.is_dry_run {
            return Ok(rows.iter().map(|row| (row.risk_level, 1)).collect());
        }
        let version = self.ruleset.version();
        let written = transaction("backfill", connection, async |connection: &mut Connection| {
            assessments::record(connection, rows, &version, assessed_at).await
        })
        .await?;
        Ok(written.into_iter().map(|written| (written.risk_level, written.count)).collect())
    }
}

/// Returns the record that the relay published for the row.
fn record_of(row: &Transaction) -> Result<FetchedRecord, RepositoryError> {
    let unwritable = |error: serde_json::Error| RepositoryError::Corrupt {
        what: "transaction",
        detail: error.to_string(),
    };
    Ok(FetchedRecord {
        offset: -1,
        key: Some(row.posting.account_id.as_str().to_owned().into()),
        value: Some(encode_transaction_created(row).map_err(unwritable)?.into()),
        headers: cloud_event_headers(row.id, TRANSACTION_CREATED, row.created_at, None),
        timestamp: row.created_at,
        leader_epoch: None,
    })
}
