//! One partition under one lease: read, assess, commit, in offset order.
//!
//! ```text
//!           ┌── all handled ─────▶ commit results + position ──┐
//! batch ────┤                                                  ├──▶ next batch
//!           └── a record fails: commit the records before it, ─┘
//!               then retry it alone: note the attempt, commit, try … dead letter + position
//! ```
//!
//! While one batch commits, on a connection of its own, the next one is read and scored. If the commit fails, the next
//! batch, which was scored on top of it, is discarded too.
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
mod gap_check;
mod halt;
mod idle_check;
mod partition_metrics;
mod scorer;
mod store;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use self::{
    attempts::{Attempts, NextAttempt},
    commits::Commits,
    gap_check::GapCheck,
    halt::Halted,
    idle_check::IdleCheck,
    partition_metrics::PartitionMetrics,
    scorer::Scorer,
    store::PartitionStore,
};
use super::{
    answer_timeout::answer_timeout,
    assess::LedgerLookup,
    dead_letter::dead_letter,
    decode::RecordFault,
    isolation::ScoringIsolation,
    memory_budget::MemoryBudget,
    reader::{DecodedRecord, PartitionFetcher, Reader},
    trace,
};
use crate::{
    broker::{LogOffset, SharedBroker},
    repository::{
        Connection, RepositoryError,
        positions::{PartitionName, Position},
    },
    risk::Ruleset,
    runtime::{Backoff, Context, Lease, OutageLog, Stop},
};

const RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// The wait between attempts of a record that fails.
const ATTEMPT_WAIT: Duration = Duration::from_millis(50);
/// The wait between checks of a halted partition.
const HALTED_WAIT: Duration = Duration::from_secs(10);

/// The result of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    /// The position moved past this many records.
    Handled(usize),
    /// No new record arrived within the longest wait.
    Idle,
    /// An attempt of a record failed; the record is retried.
    AttemptFailed,
}

/// Consumes one partition.
pub struct PartitionConsumer {
    context: Context,
    broker: SharedBroker,
    memory: Arc<MemoryBudget>,
    isolation: ScoringIsolation,
    store: PartitionStore,
    metrics: PartitionMetrics,
    connection: Option<Connection>,
    reader: Option<Reader>,
    attempts: Attempts,
    scorer: Scorer,
    commits: Commits,
    idle_check: IdleCheck,
    gap_check: GapCheck,
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
        let memory = Arc::new(MemoryBudget::for_partitions(1));
        let answer_timeout = answer_timeout(&config.database);
        let attempts = Attempts::new(config.consume_risk.attempts_max);
        let metrics = PartitionMetrics::new(&name);
        let store = PartitionStore::new(config, name, lease);
        Self {
            scorer: Scorer::new(rules, memory.histories_bytes_max(), answer_timeout, context.clock.clone()),
            commits: Commits::new(store.clone()),
            context,
            broker,
            memory,
            isolation: ScoringIsolation::default(),
            store,
            metrics,
            connection: None,
            reader: None,
            attempts,
            idle_check: IdleCheck::new(),
            gap_check: GapCheck::default(),
        }
    }

    /// Shares the memory and the isolation lock with the other partitions of the process.
    pub fn sharing(mut self, memory: Arc<MemoryBudget>, isolation: ScoringIsolation) -> Self {
        self.scorer.limit(memory.histories_bytes_max());
        Self { memory, isolation, ..self }
    }

    /// Repeats [`PartitionConsumer::run_once`] until it is asked to stop or the lease is lost. A stop drops the step in
    /// progress; its uncommitted work has no effect.
    pub async fn run(mut self, stop: Stop) {
        let mut backoff = Backoff::new(RETRY_WAIT_MIN, RETRY_WAIT_MAX);
        let mut outage = OutageLog::new(format!("consuming {}", self.store.name()));
        let mut is_halted = false;
        while !stop.is_requested() {
            let outcome = tokio::select! {
                outcome = self.run_once() => outcome,
                () = stop.requested() => break,
            };
            match outcome {
                Ok(outcome) => {
                    outage.succeeded();
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
                    self.metrics.set_halted(true);
                    if !std::mem::replace(&mut is_halted, true) {
                        tracing::error!("{error:#}");
                    }
                    pause(HALTED_WAIT, &stop).await;
                }
                Err(error) => {
                    outage.failed(&format!("{error:#}"));
                    self.metrics.count_error(error.downcast_ref());
                    backoff.wait(&stop).await;
                }
            }
        }
        self.end().await;
    }

    async fn end(mut self) {
        if let Err(error) = self.commits.finish().await {
            tracing::debug!(partition = %self.store.name(), "the last commit failed: {error:#}");
        }
        // An attempt that an outage ended must not count for the next owner. If this fails, the record has one attempt less.
        if let Some(offset) = self.attempts.open_attempt()
            && let Err(error) = self.store.take_back_attempt(offset).await
        {
            tracing::debug!(partition = %self.store.name(), "an attempt could not be taken back: {error}");
        }
        // The next owner reports from now on.
        self.metrics.set_lag(0);
        self.metrics.set_halted(false);
    }

    /// Makes one step: at most one batch, whose commit may still be in flight when this returns. After an error the
    /// memory is not trusted, and the next step begins at the position that the database holds.
    pub async fn run_once(&mut self) -> anyhow::Result<StepOutcome> {
        let outcome = self.step_connected().await;
        if outcome.is_err() {
            self.forget();
        }
        outcome
    }

    async fn step_connected(&mut self) -> anyhow::Result<StepOutcome> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.store.connect().await?,
        };
        let outcome = self.step(&mut connection).await;
        if let Err(error) = &outcome
            && let Some(reason) = halt::reason(error)
        {
            // The commit in flight moves the position at which the partition halts.
            self.commits.finish().await?;
            return Err(self.store.halt(&mut connection, reason).await?.into());
        }
        self.connection = Some(connection);
        outcome
    }

    async fn step(&mut self, connection: &mut Connection) -> anyhow::Result<StepOutcome> {
        if !self.attempts.is_position_current() {
            self.attempts.start_at(beginning::position(&self.store, &self.broker, connection).await?);
        }
        let batch_size_max = self.context.config.consume_risk.batch_size_max;
        let reader = self.reader();
        let records = reader.next(batch_size_max).await?;
        let high_watermark = reader.high_watermark();
        let outcome = match records {
            Some(records) => {
                self.find_interrupted_batch(high_watermark);
                self.handle(connection, records).await?
            }
            None => self.handle_silence(connection).await?,
        };
        self.metrics.set_lag(high_watermark - self.attempts.position().next_offset);
        Ok(outcome)
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
            Reader::start(fetcher, log_offset(self.attempts.position()))
        })
    }

    /// No record arrived: waits for the commit in flight and moves the position past transaction markers.
    async fn handle_silence(&mut self, connection: &mut Connection) -> anyhow::Result<StepOutcome> {
        self.commits.finish().await?;
        self.idle_check.run_if_due(&self.store, connection, self.attempts.position()).await?;
        // Transaction markers at the end of the partition are not records. If the position stayed before them, the lag
        // would never become 0, and retention would remove the offset at the position.
        if let Some(LogOffset { offset, leader_epoch, .. }) = self.reader.as_ref().map(Reader::read_to)
            && offset > self.attempts.position().next_offset
        {
            let change = self.attempts.move_to(offset, leader_epoch);
            self.store.advance(connection, change).await?;
            self.attempts.moved(change);
        }
        Ok(StepOutcome::Idle)
    }

    fn find_interrupted_batch(&mut self, high_watermark: i64) {
        let offset = self.attempts.position().next_offset;
        let size_max = self.context.config.consume_risk.batch_size_max;
        let end = offset.saturating_add(i64::try_from(size_max).unwrap_or(i64::MAX));
        if self.attempts.retry_interrupted_batch(high_watermark.min(end)) {
            tracing::warn!(partition = %self.store.name(), offset,
                "the last owner did not finish its batch: retrying the records one by one");
        }
    }

    async fn handle(
        &mut self,
        connection: &mut Connection,
        records: Vec<DecodedRecord>,
    ) -> anyhow::Result<StepOutcome> {
        match self.attempts.next() {
            NextAttempt::Batch { must_note } => self.handle_batch(connection, records, must_note).await,
            NextAttempt::Alone { number, must_note } => {
                self.commits.finish().await?;
                let Some(record) = self.take_first(records) else { return Ok(StepOutcome::Idle) };
                self.handle_alone(connection, record, number, must_note).await
            }
            NextAttempt::Exhausted { attempts } => {
                self.commits.finish().await?;
                let Some(record) = self.take_first(records) else { return Ok(StepOutcome::Idle) };
                let fault = record.event.as_ref().err().cloned();
                let fault = fault.unwrap_or_else(|| RecordFault {
                    stage: "process",
                    reason: "process_ended",
                    error: format!(
                        "the process ended, or lost the partition, during each of {attempts} attempts"
                    ),
                });
                self.dead_letter(connection, &record, &fault, attempts).await
            }
        }
    }

    async fn handle_batch(
        &mut self,
        connection: &mut Connection,
        mut records: Vec<DecodedRecord>,
        must_note: bool,
    ) -> anyhow::Result<StepOutcome> {
        if must_note {
            self.store.note_attempt(connection, self.attempts.position().next_offset, 0).await?;
            self.attempts.batch_noted();
        }
        let spans = trace::spans(&records);
        let lookup = LedgerLookup::RowOnly;
        let mut assessed = self.scorer.assess(connection, &records, lookup, Some(&self.isolation)).await?;
        self.commits.finish().await?;
        self.gap_check.confirm(&self.store, connection, &mut assessed).await?;
        let rest = records.split_off(assessed.handled.min(records.len()));
        let has_fault = assessed.fault.is_some();
        if let Some(last) = records.last() {
            let change = self.attempts.move_past(&last.record);
            self.commits.begin(change, assessed, spans).await?;
            self.attempts.moved(change);
        }
        if has_fault && let Some(next) = rest.first() {
            self.attempts.batch_stopped_at(next.record.offset);
        }
        self.put_back(rest);
        Ok(StepOutcome::Handled(records.len()))
    }

    /// Makes one attempt at one record. From the second attempt on, no other partition of the process scores in parallel.
    async fn handle_alone(
        &mut self,
        connection: &mut Connection,
        record: DecodedRecord,
        number: i32,
        must_note: bool,
    ) -> anyhow::Result<StepOutcome> {
        let isolation = self.isolation.clone();
        let isolated = if number > 1 { Some(isolation.isolate().await) } else { None };
        if must_note {
            self.store.note_attempt(connection, self.attempts.position().next_offset, number).await?;
            self.attempts.attempt_noted(number);
        }
        let records = std::slice::from_ref(&record);
        let spans = trace::spans(records);
        let shared = if isolated.is_some() { None } else { Some(&isolation) };
        let mut assessed = self.scorer.assess(connection, records, LedgerLookup::Full, shared).await?;
        self.gap_check.confirm(&self.store, connection, &mut assessed).await?;
        if let Some(fault) = &assessed.fault {
            self.attempts.attempt_failed();
            if number >= self.context.config.consume_risk.attempts_max {
                return self.dead_letter(connection, &record, fault, number).await;
            }
            self.put_back(vec![record]);
            return Ok(StepOutcome::AttemptFailed);
        }
        let change = self.attempts.move_past(&record.record);
        self.commits.begin(change, assessed, spans).await?;
        // If the commit fails, the attempt stays open: an outage is not the record's fault.
        self.commits.finish().await?;
        self.attempts.moved(change);
        Ok(StepOutcome::Handled(1))
    }

    async fn dead_letter(
        &mut self,
        connection: &mut Connection,
        record: &DecodedRecord,
        fault: &RecordFault,
        attempts: i32,
    ) -> anyhow::Result<StepOutcome> {
        let dead_letter = dead_letter(self.store.name(), &record.record, fault, attempts);
        let change = self.attempts.move_past(&record.record);
        self.store.write_dead_letter(connection, change, &dead_letter).await?;
        self.attempts.moved(change);
        tracing::error!(partition = %self.store.name(), offset = record.record.offset, stage = fault.stage,
            reason = fault.reason, error = dead_letter.error, attempts, "a record became a dead letter");
        metrics::counter!("ledger_dead_letters_total", "reason" => fault.reason).increment(1);
        metrics::counter!("ledger_consumer_events_total", "outcome" => "dead_lettered").increment(1);
        Ok(StepOutcome::Handled(1))
    }

    /// Takes the first record and puts the others back.
    fn take_first(&mut self, mut records: Vec<DecodedRecord>) -> Option<DecodedRecord> {
        let rest = records.split_off(records.len().min(1));
        self.put_back(rest);
        records.pop()
    }

    fn put_back(&mut self, records: Vec<DecodedRecord>) {
        if let Some(reader) = &mut self.reader {
            reader.put_back(records);
        }
    }

    /// Drops everything in memory that depends on the state of the database.
    fn forget(&mut self) {
        self.connection = None;
        self.reader = None;
        self.commits.forget();
        self.attempts.forget_position();
        self.scorer.forget();
    }
}

fn log_offset(Position { next_offset, log_id, leader_epoch, .. }: Position) -> LogOffset {
    LogOffset { offset: next_offset, log_id, leader_epoch }
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
