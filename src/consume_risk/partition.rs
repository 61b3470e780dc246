//! One partition under one lease: read, assess, commit, in offset order.
//!
//! ```text
//!           ┌── all handled ─────▶ commit results + position ──┐
//! batch ────┤                                                  ├──▶ next batch
//!           └── a record fails: commit the records before it, ─┘
//!               then retry it alone: note the attempt, commit, try … dead letter + position
//! ```
//!
//! A record that cannot be decoded would fail at every attempt. It becomes a dead letter at once, in the commit of the
//! records around it, so records of another program do not delay the events behind them.
//!
//! While one batch commits, the next one is read and scored. If the commit fails, the next batch, which was scored on top
//! of it, is discarded too. A partition uses at most two connections: one for the commit, one for the next batch.
//!
//! Guarantees:
//! - Results, their events and the position commit together, under the lease's fence.
//! - The position never passes a record that has neither a result nor a dead letter.
//! - If the log does not continue at the position, the partition halts until an operator decides (see [`halt`]).
//! - During an outage the partition waits and retries without limit. An outage never causes a dead letter. A database
//!   that does not answer counts as a lost connection.
//! - A record that ends the process becomes a dead letter after `attempts_max` attempts, and no other record does
//!   (see [`attempts`]).
//! - A record that may have crashed the process is retried alone, so that a crash cannot be blamed on another record
//!   (see [`ScoringIsolation`]).

mod attempts;
mod beginning;
mod commits;
mod dead_letter_log;
mod gap_check;
mod halt;
mod handler;
mod idle_check;
mod log_check;
mod partition_metrics;
mod scorer;
mod store;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::{sync::watch, time::timeout};

pub use self::{
    attempts::{Attempts, NextAttempt},
    handler::StepOutcome,
    log_check::LogCheck,
};
use self::{
    commits::Commits,
    gap_check::GapCheck,
    halt::Halted,
    handler::{Handled, RecordHandler},
    idle_check::IdleCheck,
    partition_metrics::PartitionMetrics,
    scorer::Scorer,
    store::PartitionStore,
};
use super::{
    answer_timeout::answer_timeout,
    isolation::ScoringIsolation,
    memory_budget::MemoryBudget,
    reader::{DecodedRecord, PartitionFetcher, Reader},
    shared_connections::SharedConnections,
};
use crate::{
    broker::{BrokerError, LogOffset, OffsetRange, SharedBroker},
    repository::{RepositoryError, positions::PartitionName},
    risk::Ruleset,
    runtime::{Backoff, Context, HealthPart, Lease, Stop},
};

const RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// The wait between attempts of a record that fails.
const ATTEMPT_WAIT: Duration = Duration::from_millis(50);
/// The wait between checks of a halted partition.
const HALTED_WAIT: Duration = Duration::from_secs(10);
/// A lag that was measured longer ago is not shown. The wait of an idle fetch is added.
const LAG_AGE_MAX: Duration = Duration::from_secs(30);

/// Consumes one partition.
pub struct PartitionConsumer {
    context: Context,
    broker: SharedBroker,
    memory: Arc<MemoryBudget>,
    connections: Arc<SharedConnections>,
    store: PartitionStore,
    metrics: PartitionMetrics,
    health: HealthPart,
    reader: Option<Reader>,
    handler: RecordHandler,
    idle_check: IdleCheck,
}

impl PartitionConsumer {
    /// Creates a consumer, which reads nothing before its first step.
    pub fn new(
        context: Context,
        broker: SharedBroker,
        rules: watch::Receiver<Arc<Ruleset>>,
        name: PartitionName,
        lease: Lease,
    ) -> Self {
        let config = Arc::clone(&context.config);
        let memory = Arc::new(MemoryBudget::new(config.risk.history_bytes_max()));
        let connections = SharedConnections::new(&config.database, &context.outages);
        let answer_timeout = answer_timeout(&config.database);
        let attempts_max = config.consume_risk.attempts_max;
        let metrics = PartitionMetrics::new(&name, context.clock.clone());
        let health = context.health.part(format!("consuming {name}"));
        let store = PartitionStore::new(config, name, lease);
        let handler = RecordHandler {
            store: store.clone(),
            scorer: Scorer::new(rules, memory.share(), answer_timeout, context.clock.clone()),
            isolation: ScoringIsolation::default(),
            attempts: Attempts::new(attempts_max),
            commits: Commits::new(store.clone()),
            gap_check: GapCheck::default(),
            attempts_max,
        };
        Self {
            context,
            broker,
            memory,
            connections,
            store,
            metrics,
            health,
            reader: None,
            handler,
            idle_check: IdleCheck::new(),
        }
    }

    /// Shares memory, isolation lock and database connections with the other partitions of the process.
    pub(super) fn sharing(
        mut self,
        memory: Arc<MemoryBudget>,
        isolation: ScoringIsolation,
        connections: Arc<SharedConnections>,
    ) -> Self {
        self.handler.scorer.limit(memory.share());
        self.handler.isolation = isolation;
        Self { memory, connections, ..self }
    }

    /// Repeats [`PartitionConsumer::run_once`] until it is asked to stop or the lease is lost. A stop drops the step in
    /// progress; its uncommitted work has no effect.
    pub async fn run(mut self, stop: Stop) {
        let mut backoff = Backoff::new(RETRY_WAIT_MIN, RETRY_WAIT_MAX);
        let mut outage = self.context.outages.log_of(format!("consuming {}", self.store.name().topic));
        let mut is_halted = false;
        while !stop.is_requested() {
            let outcome = tokio::select! {
                outcome = self.run_once() => outcome,
                () = stop.requested() => break,
            };
            self.handler.commits.log_dead_letters(matches!(outcome, Ok(StepOutcome::Idle) | Err(_)));
            match outcome {
                Ok(outcome) => {
                    outage.succeeded();
                    self.health.set_failing(false);
                    backoff.reset();
                    self.metrics.set_halted(false);
                    if outcome == StepOutcome::AttemptFailed {
                        pause(ATTEMPT_WAIT, &stop).await;
                    }
                }
                Err(error) if is_lease_lost(&error) => {
                    tracing::info!(partition = %self.store.name(), "the lease was lost");
                    break;
                }
                Err(error) if error.is::<Halted>() => {
                    self.health.set_failing(false);
                    self.metrics.set_halted(true);
                    if !std::mem::replace(&mut is_halted, true) {
                        tracing::error!("{error:#}");
                    }
                    tokio::select! {
                        () = self.measure_lag() => {}
                        () = stop.requested() => {}
                    }
                    pause(HALTED_WAIT, &stop).await;
                }
                Err(error) => {
                    outage.failed(&format!("partition {}: {error:#}", self.store.name().partition));
                    self.health.set_failing(true);
                    self.wait_after(&error, &mut backoff, &stop).await;
                }
            }
        }
        self.end().await;
    }

    async fn wait_after(&mut self, error: &anyhow::Error, backoff: &mut Backoff, stop: &Stop) {
        self.metrics.count_error(error.downcast_ref());
        if is_of_database(error) {
            // The partition makes no progress, so nothing else would show that its lag grows.
            tokio::select! {
                () = self.measure_lag() => {}
                () = stop.requested() => {}
            }
        } else {
            self.metrics.forget_lag();
        }
        backoff.wait(stop).await;
    }

    /// Shows the lag from the last known position, or from the first record if the position was never read.
    async fn measure_lag(&mut self) {
        let PartitionName { topic, partition, .. } = self.store.name();
        match self.broker.offset_range(topic, *partition).await {
            Ok(OffsetRange { earliest, latest }) => {
                self.metrics.set_lag(latest - self.handler.attempts.position().next_offset.max(earliest));
            }
            Err(error) => {
                tracing::debug!(partition = %self.store.name(), "cannot measure the lag: {error}");
                self.metrics.forget_lag();
            }
        }
    }

    async fn end(mut self) {
        // The next owner reports from now on. Without the database, the rest takes a while.
        self.metrics.forget();
        if let Err(error) = self.handler.commits.finish().await {
            tracing::debug!(partition = %self.store.name(), "the last commit failed: {error:#}");
        }
        self.handler.commits.log_dead_letters(true);
        // An attempt that an outage ended must not count for the next owner. If this fails, the record has one attempt less.
        if let Some(offset) = self.handler.attempts.open_attempt()
            && let Err(error) = self.take_back_attempt(offset).await
        {
            tracing::debug!(partition = %self.store.name(), "an attempt could not be taken back: {error}");
        }
    }

    async fn take_back_attempt(&self, offset: i64) -> Result<(), RepositoryError> {
        let mut lent = self.connections.take().await?;
        self.store.take_back_attempt(lent.connection(), offset).await?;
        lent.give_back();
        Ok(())
    }

    /// Makes one step: at most one batch, whose commit may still be in flight when this returns. After an error the
    /// memory is not trusted, and the next step begins at the position that the database holds.
    pub async fn run_once(&mut self) -> anyhow::Result<StepOutcome> {
        let outcome = self.step_or_halt().await;
        if let Err(error) = &outcome {
            self.forget();
            if is_of_database(error) {
                self.connections.close_idle();
            }
        }
        outcome
    }

    async fn step_or_halt(&mut self) -> anyhow::Result<StepOutcome> {
        let outcome = self.step().await;
        let Some(reason) = outcome.as_ref().err().and_then(halt::reason) else { return outcome };
        // The commit in flight moves the position at which the partition halts.
        self.handler.commits.finish().await?;
        let mut lent = self.connections.take().await?;
        let halted = self.store.halt(lent.connection(), reason).await?;
        lent.give_back();
        Err(halted.into())
    }

    async fn step(&mut self) -> anyhow::Result<StepOutcome> {
        if !self.handler.attempts.is_position_current() {
            let position = beginning::position(&self.store, &self.broker, &self.connections).await?;
            self.handler.attempts.start_at(position);
        }
        let records = self.next_records().await?;
        let high_watermark = self.reader().high_watermark();
        let outcome = match records {
            Some(records) => {
                self.metrics.set_oldest(published_at(records.first()));
                self.show_lag(high_watermark);
                let last = published_at(records.last());
                self.find_interrupted_batch(high_watermark);
                let lent = self.connections.take().await?;
                let Handled { outcome, rest } = self.handler.handle(lent, records).await?;
                // If no other record was read yet, the next one is hardly older than the last one.
                self.metrics.set_oldest(published_at(rest.first()).or(last));
                self.put_back(rest);
                outcome
            }
            None => self.handle_silence().await?,
        };
        self.show_lag(high_watermark);
        Ok(outcome)
    }

    /// Returns the next records, or None if there are none. A broker that enforces a quota may let a fetch wait for minutes.
    /// During that wait, the lag is not known.
    async fn next_records(&mut self) -> Result<Option<Vec<DecodedRecord>>, BrokerError> {
        let config = &self.context.config.consume_risk;
        let (count_max, lag_age_max) = (config.batch_size_max, config.poll_interval_max + LAG_AGE_MAX);
        if let Ok(records) = timeout(lag_age_max, self.reader().next(count_max)).await {
            return records;
        }
        self.metrics.forget_lag();
        self.reader().next(count_max).await
    }

    fn show_lag(&mut self, high_watermark: i64) {
        self.metrics.set_lag(high_watermark - self.handler.attempts.position().next_offset);
    }

    fn reader(&mut self) -> &mut Reader {
        let config = &self.context.config.consume_risk;
        self.reader.get_or_insert_with(|| {
            let fetcher = PartitionFetcher {
                broker: self.broker.clone(),
                name: self.store.name().clone(),
                wait_max: config.poll_interval_max,
                batch_size_max: config.batch_size_max,
                memory: Arc::clone(&self.memory),
            };
            Reader::start(fetcher, self.handler.attempts.log_offset())
        })
    }

    /// No record arrived: waits for the commit in flight and moves the position past transaction markers.
    async fn handle_silence(&mut self) -> anyhow::Result<StepOutcome> {
        self.handler.commits.finish().await?;
        self.handler.scorer.shrink();
        if self.idle_check.is_due() {
            let mut lent = self.connections.take().await?;
            self.idle_check.run(&self.store, lent.connection(), self.handler.attempts.position()).await?;
            lent.give_back();
        }
        // Transaction markers at the end of the partition are not records. If the position stayed before them, the lag
        // would never become 0, and retention would remove the offset at the position.
        if let Some(LogOffset { offset, leader_epoch, .. }) = self.reader.as_ref().map(Reader::read_to)
            && offset > self.handler.attempts.position().next_offset
        {
            let change = self.handler.attempts.move_to(offset, leader_epoch);
            let mut lent = self.connections.take().await?;
            self.store.advance(lent.connection(), change).await?;
            lent.give_back();
            self.handler.attempts.moved(change);
        }
        Ok(StepOutcome::Idle)
    }

    fn find_interrupted_batch(&mut self, high_watermark: i64) {
        let offset = self.handler.attempts.position().next_offset;
        let size_max = self.context.config.consume_risk.batch_size_max;
        let end = offset.saturating_add(i64::try_from(size_max).unwrap_or(i64::MAX));
        if self.handler.attempts.retry_interrupted_batch(high_watermark.min(end)) {
            tracing::warn!(partition = %self.store.name(), offset,
                "the last owner did not finish its batch: retrying the records one by one");
        }
    }

    fn put_back(&mut self, records: Vec<DecodedRecord>) {
        if let Some(reader) = &mut self.reader {
            reader.put_back(records);
        }
    }

    /// Drops everything in memory that depends on the state of the database.
    fn forget(&mut self) {
        self.reader = None;
        self.handler.forget();
    }
}

/// Returns the time of publication of a record.
fn published_at(record: Option<&DecodedRecord>) -> Option<DateTime<Utc>> {
    record.map(|record| record.record.timestamp)
}

/// Returns whether a step failed because of the database, and not because of the broker or a decision of this process.
fn is_of_database(error: &anyhow::Error) -> bool {
    !error.is::<BrokerError>() && !error.is::<Halted>() && !is_lease_lost(error)
}

fn is_lease_lost(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<RepositoryError>(), Some(RepositoryError::LeaseLost(_)))
}

async fn pause(wait: Duration, stop: &Stop) {
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = stop.requested() => {}
    }
}
