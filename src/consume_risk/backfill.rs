//! Rows of the ledger whose events are lost, through the decisions of the role: for the gap that a lost offset leaves.
//!
//! Guarantees: each row is turned into the event that told of it and goes the same way as in the role, so it gets the
//! assessment that it would have had; what is written is one live assessment per transaction and its announcement,
//! whatever the role does at the same moment. Deliberately absent: a lease and a position, for no record is consumed.

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
    domain::Transaction,
    event::{TRANSACTION_CREATED, cloud_event_headers, encode_transaction_created},
    repository::{Connection, RepositoryError, assessments, transaction},
    risk::Ruleset,
};

/// A row that the rules cannot score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillFailure {
    /// The transaction.
    pub transaction_id: Uuid,
    /// Why, for a person.
    pub error: String,
}

/// What became of rows, or would.
#[derive(Debug, Default)]
pub struct Backfilled {
    /// Assessments by level that were written, or would be.
    pub assessed: BTreeMap<String, i64>,
    /// Rows that somebody else assessed meanwhile.
    pub already: i64,
    /// Rows that stay without.
    pub failing: Vec<BackfillFailure>,
}

/// Assesses rows, batch after batch.
pub struct Backfill {
    ruleset: Ruleset,
    cache: HistoryCache,
    is_dry_run: bool,
}

impl Backfill {
    /// A dry run scores everything and writes nothing.
    pub fn new(ruleset: Ruleset, is_dry_run: bool) -> Self {
        let mut cache = HistoryCache::default();
        cache.limit(MemoryBudget::for_partitions(1).histories_bytes_max());
        Self { ruleset, cache, is_dry_run }
    }

    /// Assesses these rows, which are in `account_seq` order within each account, in one commit or a few.
    pub async fn assess(
        &mut self,
        connection: &mut Connection,
        rows: &[Transaction],
    ) -> Result<Backfilled, RepositoryError> {
        let records: Vec<DecodedRecord> = rows.iter().map(record_of).collect::<Result<_, _>>()?;
        let mut done = Backfilled::default();
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
    ) -> Result<Vec<(String, i64)>, RepositoryError> {
        if self.is_dry_run {
            return Ok(rows.iter().map(|row| (row.risk_level.to_owned(), 1)).collect());
        }
        let version = self.ruleset.version();
        let written = transaction("backfill", connection, async |connection: &mut Connection| {
            assessments::record(connection, rows, &version, assessed_at).await
        })
        .await?;
        Ok(written.into_iter().map(|written| (written.risk_level, written.count)).collect())
    }
}

/// The row as the record that told of it.
fn record_of(row: &Transaction) -> Result<DecodedRecord, RepositoryError> {
    let unwritable = |error: serde_json::Error| RepositoryError::Corrupt {
        what: "transaction",
        detail: error.to_string(),
    };
    let record = FetchedRecord {
        offset: -1,
        key: Some(row.posting.account_id.as_str().to_owned().into()),
        value: Some(encode_transaction_created(row).map_err(unwritable)?.into()),
        headers: cloud_event_headers(row.id, TRANSACTION_CREATED, row.created_at, None),
        timestamp: row.created_at,
    };
    Ok(DecodedRecord { event: decode(&record), record })
}
