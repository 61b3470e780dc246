//! The commit of one batch, on a connection of its own, while the next batch is read and scored.
//!
//! Guarantees: at most one commit is in flight. If it fails, or its answer is lost, the caller must drop its
//! state in memory and read the position again: only the database knows the outcome.

use anyhow::Context as _;
use tokio_util::task::AbortOnDropHandle;

use super::{super::assess::Assessed, store::PartitionStore};
use crate::{
    repository::{Connection, RepositoryError, assessments::WrittenAssessments, positions::PositionMove},
    runtime::fail_point,
};

struct InFlight {
    to: i64,
    /// The task that commits. It returns the connection for the next commit.
    task: AbortOnDropHandle<Result<Connection, RepositoryError>>,
}

pub(super) struct Commits {
    store: PartitionStore,
    connection: Option<Connection>,
    in_flight: Option<InFlight>,
}

impl Commits {
    /// Creates it without a connection. The first commit connects.
    pub fn new(store: PartitionStore) -> Self {
        Self { store, connection: None, in_flight: None }
    }

    /// Begins to commit results, their events and the move of the position, all or nothing. The previous commit must
    /// have been finished.
    pub async fn begin(
        &mut self,
        change: PositionMove,
        assessed: Assessed,
        spans: Vec<tracing::Span>,
    ) -> Result<(), RepositoryError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.store.connect().await?,
        };
        fail_point::reach("consume-risk/assessed");
        let store = self.store.clone();
        let task = tokio::spawn(async move {
            let written = store.write_assessments(&mut connection, change, &assessed).await?;
            fail_point::reach("consume-risk/committed");
            count(&assessed, &written);
            drop(spans);
            Ok(connection)
        });
        self.in_flight = Some(InFlight { to: change.to, task: AbortOnDropHandle::new(task) });
        Ok(())
    }

    /// Waits for the commit in flight, if there is one.
    pub async fn finish(&mut self) -> anyhow::Result<()> {
        if let Some(InFlight { to, task }) = self.in_flight.take() {
            let connection = task.await.with_context(|| format!("the commit up to {to} was dropped"))??;
            self.connection = Some(connection);
        }
        Ok(())
    }

    /// Drops the commit in flight and the connection.
    pub fn forget(&mut self) {
        self.connection = None;
        self.in_flight = None;
    }
}

fn count(assessed: &Assessed, written: &[WrittenAssessments]) {
    let mut fresh = 0;
    for WrittenAssessments { risk_level, count } in written {
        let count = u64::try_from(*count).unwrap_or_default();
        fresh += count;
        metrics::counter!("ledger_risk_assessments_total", "level" => risk_level.as_str()).increment(count);
    }
    let expected = u64::try_from(assessed.rows.len()).unwrap_or_default();
    let duplicates = assessed.duplicates + expected.saturating_sub(fresh);
    metrics::counter!("ledger_consumer_events_total", "outcome" => "assessed").increment(fresh);
    metrics::counter!("ledger_consumer_events_total", "outcome" => "duplicate").increment(duplicates);
    metrics::counter!("ledger_consumer_sequence_gaps_total").increment(assessed.gaps);
}
