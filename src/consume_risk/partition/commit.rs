//! The commit of a batch, on a connection of its own, while the next batch is read and scored.

use anyhow::Context as _;
use tokio_util::task::AbortOnDropHandle;

use super::{
    super::{assess::Assessed, patience::answered},
    PartitionConsumer,
};
use crate::{
    repository::{
        Connection, RepositoryError,
        assessments::{self, Written},
        leases,
        positions::{self, Position},
        transaction,
    },
    runtime::fail_point,
};

/// A batch on its way into the database.
pub(super) struct Commit {
    to: i64,
    /// Gives the connection back.
    task: AbortOnDropHandle<Result<Connection, RepositoryError>>,
}

impl PartitionConsumer {
    /// Results, announcements and position, together or not at all.
    pub(super) async fn begin_commit(
        &mut self,
        position: Position,
        to: i64,
        assessed: Assessed,
        spans: Vec<tracing::Span>,
    ) -> anyhow::Result<()> {
        let mut connection = match self.commit_connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        fail_point::reach("consume-risk/assessed");
        let from = position.next_offset;
        let interrupted = self.is_careful(to);
        let ruleset = self.cached_for.clone().unwrap_or_default();
        let (lease, name, patience) = (self.lease.clone(), self.name.clone(), self.patience());
        let task = tokio::spawn(async move {
            let (lease, name, assessed) = (&lease, &name, &assessed);
            let (rows, ruleset, assessed_at) = (&assessed.rows, &*ruleset, assessed.assessed_at);
            let writing = transaction("assess", &mut connection, async |connection: &mut Connection| {
                leases::hold(connection, &[lease]).await?;
                positions::advance(connection, name, from, to, interrupted).await?;
                let written = assessments::record(connection, rows, ruleset, assessed_at).await;
                fail_point::reach("consume-risk/writing");
                written
            });
            let written = answered(patience, writing).await?;
            fail_point::reach("consume-risk/committed");
            count(assessed, &written);
            drop(spans);
            Ok(connection)
        });
        self.commit = Some(Commit { to, task: AbortOnDropHandle::new(task) });
        self.moved_to(to, interrupted);
        Ok(())
    }

    /// Waits for the commit under way, if there is one. The position in memory has moved already; an error takes it
    /// back, because then everything in memory is forgotten: what became of a commit without an answer, the database's
    /// position tells.
    pub(super) async fn finish_commit(&mut self) -> anyhow::Result<()> {
        if let Some(Commit { to, task }) = self.commit.take() {
            let connection = task.await.with_context(|| format!("the commit up to {to} was dropped"))??;
            self.commit_connection = Some(connection);
        }
        Ok(())
    }
}

fn count(assessed: &Assessed, written: &[Written]) {
    let mut fresh = 0;
    for Written { risk_level, count } in written {
        let count = u64::try_from(*count).unwrap_or_default();
        fresh += count;
        metrics::counter!("ledger_risk_assessments_total", "level" => risk_level.clone()).increment(count);
    }
    let expected = u64::try_from(assessed.rows.len()).unwrap_or_default();
    let duplicates = assessed.duplicates + expected.saturating_sub(fresh);
    metrics::counter!("ledger_consumer_events_total", "outcome" => "assessed").increment(fresh);
    metrics::counter!("ledger_consumer_events_total", "outcome" => "duplicate").increment(duplicates);
}
