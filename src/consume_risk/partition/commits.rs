//! The commit of one batch while the next batch is read and scored.
//!
//! Guarantees: at most one commit is in flight. If it fails, or its answer is lost, the caller must drop its
//! state in memory and read the position again: only the database knows the outcome.

use anyhow::Context as _;
use tokio_util::task::AbortOnDropHandle;

use super::{
    super::{assess::FailingRule, shared_connections::LentConnection},
    dead_letter_log::{Burst, DeadLetterLog},
    store::{PartitionStore, Results},
};
use crate::{
    repository::{RepositoryError, assessments::WrittenAssessments, positions::PositionMove},
    runtime::{EventSpans, fail_point},
};

struct InFlight {
    to: i64,
    dead_letters: Option<Burst>,
    task: AbortOnDropHandle<Result<(), RepositoryError>>,
}

pub(super) struct Commits {
    store: PartitionStore,
    in_flight: Option<InFlight>,
    dead_letter_log: DeadLetterLog,
}

impl Commits {
    /// Creates it without a commit in flight.
    pub fn new(store: PartitionStore) -> Self {
        Self { store, in_flight: None, dead_letter_log: DeadLetterLog::default() }
    }

    /// Begins to commit results, their events and the move of the position, all or nothing. The previous commit must
    /// have been finished.
    pub fn begin(
        &mut self,
        mut lent: LentConnection,
        change: PositionMove,
        results: Results,
        spans: EventSpans,
    ) {
        fail_point::reach("consume-risk/assessed");
        let store = self.store.clone();
        let dead_letters = Burst::of(&results.dead_letters);
        let task = tokio::spawn(async move {
            let written = store.write(lent.connection(), change, &results).await?;
            lent.give_back();
            fail_point::reach("consume-risk/committed");
            count(&results, &written);
            spans.succeed();
            Ok(())
        });
        self.in_flight = Some(InFlight { to: change.to, dead_letters, task: AbortOnDropHandle::new(task) });
    }

    /// Waits for the commit in flight, if there is one.
    pub async fn finish(&mut self) -> anyhow::Result<()> {
        if let Some(InFlight { to, dead_letters, task }) = self.in_flight.take() {
            task.await.with_context(|| format!("the commit up to {to} was dropped"))??;
            dead_letters.into_iter().for_each(|burst| self.dead_letter_log.add(burst));
        }
        Ok(())
    }

    /// Logs the dead letters of finished commits. `is_over`: no further ones are expected soon.
    pub fn log_dead_letters(&mut self, is_over: bool) {
        self.dead_letter_log.log(self.store.name(), is_over);
    }

    /// Drops the commit in flight.
    pub fn forget(&mut self) {
        self.in_flight = None;
    }
}

fn count(Results { assessed, dead_letters }: &Results, written: &[WrittenAssessments]) {
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
    for (rule, FailingRule { mode, count, .. }) in &assessed.failing_rules {
        metrics::counter!("ledger_risk_rule_errors_total", "rule" => rule.clone(), "mode" => mode.clone())
            .increment(*count);
    }
    for letter in dead_letters {
        metrics::counter!("ledger_dead_letters_total", "reason" => letter.reason).increment(1);
        metrics::counter!("ledger_consumer_events_total", "outcome" => "dead_lettered").increment(1);
    }
}
