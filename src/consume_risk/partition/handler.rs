//! Handles the records at a partition's position: scores them, dead-letters them, and begins the commit of the results.
//!
//! Guarantees:
//! - A record that cannot be decoded becomes a dead letter at once, in one commit with the records around it.
//! - Any other record that fails becomes a dead letter after `attempts_max` attempts.
//! - From its second attempt on, a record is retried alone in the process (see [`ScoringIsolation`]).

use super::{
    super::{
        assess::{Assessed, LedgerLookup},
        dead_letter::dead_letter,
        decode::RecordFault,
        isolation::ScoringIsolation,
        reader::DecodedRecord,
        shared_connections::LentConnection,
        trace,
    },
    attempts::{Attempts, NextAttempt},
    commits::Commits,
    gap_check::GapCheck,
    scorer::Scorer,
    store::{PartitionStore, Results},
};
use crate::{repository::dead_letters::NewDeadLetter, runtime::EventSpans};

/// The attempts of a record that cannot be decoded: it would fail at every other attempt too.
const ATTEMPTS_AT_ONCE: i32 = 1;

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

/// The outcome of a step, and the records that are not handled yet.
pub(super) struct Handled {
    pub outcome: StepOutcome,
    pub rest: Vec<DecodedRecord>,
}

/// The part of a consumer that handles records. Everything in it depends on the state of the database.
pub(super) struct RecordHandler {
    pub store: PartitionStore,
    pub scorer: Scorer,
    pub isolation: ScoringIsolation,
    pub attempts: Attempts,
    pub commits: Commits,
    pub gap_check: GapCheck,
    pub attempts_max: i32,
}

impl RecordHandler {
    /// Handles records from the front: all of them together, or the first one.
    pub async fn handle(
        &mut self,
        lent: LentConnection,
        records: Vec<DecodedRecord>,
    ) -> anyhow::Result<Handled> {
        let next = self.attempts.next();
        if let NextAttempt::Batch { must_note } = next {
            return self.handle_batch(lent, records, must_note).await;
        }
        self.commits.finish().await?;
        let undecodable = records.iter().take_while(|record| record.event.is_err()).count();
        let front = records.get(..undecodable.max(1)).unwrap_or_default();
        match next {
            NextAttempt::Alone { number, must_note } if undecodable == 0 => {
                self.handle_alone(lent, records, number, must_note).await
            }
            NextAttempt::Exhausted { attempts } if undecodable == 0 => {
                let dead_letters = self.dead_letters(front, attempts, Some(&process_ended(attempts)));
                self.dead_letter(lent, records, dead_letters).await
            }
            _ => {
                let dead_letters = self.dead_letters(front, ATTEMPTS_AT_ONCE, None);
                self.dead_letter(lent, records, dead_letters).await
            }
        }
    }

    async fn handle_batch(
        &mut self,
        mut lent: LentConnection,
        mut records: Vec<DecodedRecord>,
        must_note: bool,
    ) -> anyhow::Result<Handled> {
        if must_note {
            self.store.note_attempt(lent.connection(), self.attempts.position().next_offset, 0).await?;
            self.attempts.batch_noted();
        }
        let mut spans = trace::spans(&records);
        let lookup = LedgerLookup::RowOnly;
        let mut assessed =
            self.scorer.assess(lent.connection(), &records, lookup, Some(&self.isolation)).await?;
        self.commits.finish().await?;
        self.gap_check.confirm(&self.store, lent.connection(), &mut assessed).await?;
        let rest = records.split_off(assessed.handled.min(records.len()));
        spans.leave_out_last(trace::traced(&rest).count());
        let has_fault = assessed.fault.is_some();
        if let Some(last) = records.last() {
            let change = self.attempts.move_past(&last.record);
            let dead_letters = self.dead_letters(&records, ATTEMPTS_AT_ONCE, None);
            self.commits.begin(lent, change, Results { assessed, dead_letters }, spans);
            self.attempts.moved(change);
        } else {
            lent.give_back();
        }
        if has_fault && let Some(next) = rest.first() {
            self.attempts.batch_stopped_at(next.record.offset);
        }
        Ok(Handled { outcome: StepOutcome::Handled(records.len()), rest })
    }

    /// Makes one attempt at the first record. From the second attempt on, no other partition of the process scores in
    /// parallel.
    async fn handle_alone(
        &mut self,
        mut lent: LentConnection,
        records: Vec<DecodedRecord>,
        number: i32,
        must_note: bool,
    ) -> anyhow::Result<Handled> {
        let isolation = self.isolation.clone();
        let isolated = if number > 1 { Some(isolation.isolate().await) } else { None };
        if must_note {
            self.store.note_attempt(lent.connection(), self.attempts.position().next_offset, number).await?;
            self.attempts.attempt_noted(number);
        }
        let first = records.get(..1).unwrap_or_default();
        let spans = trace::spans(first);
        let shared = if isolated.is_some() { None } else { Some(&isolation) };
        let mut assessed = self.scorer.assess(lent.connection(), first, LedgerLookup::Full, shared).await?;
        self.gap_check.confirm(&self.store, lent.connection(), &mut assessed).await?;
        let Some(fault) = &assessed.fault else {
            let results = Results { assessed, dead_letters: Vec::new() };
            return self.commit(lent, records, 1, results, spans).await;
        };
        self.attempts.attempt_failed();
        if number < self.attempts_max {
            lent.give_back();
            return Ok(Handled { outcome: StepOutcome::AttemptFailed, rest: records });
        }
        let dead_letters = self.dead_letters(first, number, Some(fault));
        self.dead_letter(lent, records, dead_letters).await
    }

    /// Returns the dead letters of the records that hold no event, or of all records if they share a fault.
    fn dead_letters(
        &self,
        records: &[DecodedRecord],
        attempts: i32,
        shared_fault: Option<&RecordFault>,
    ) -> Vec<NewDeadLetter> {
        let faults = records
            .iter()
            .filter_map(|record| Some((&record.record, record.event.as_ref().err().or(shared_fault)?)));
        faults.map(|(record, fault)| dead_letter(self.store.name(), record, fault, attempts)).collect()
    }

    /// Commits the dead letters of the first records.
    async fn dead_letter(
        &mut self,
        lent: LentConnection,
        records: Vec<DecodedRecord>,
        dead_letters: Vec<NewDeadLetter>,
    ) -> anyhow::Result<Handled> {
        let count = dead_letters.len();
        let results = Results { assessed: Assessed::default(), dead_letters };
        self.commit(lent, records, count, results, EventSpans::default()).await
    }

    /// Commits the results of the first `count` records, and waits for the commit. If it fails, an attempt stays open: an
    /// outage is not the record's fault.
    async fn commit(
        &mut self,
        lent: LentConnection,
        mut records: Vec<DecodedRecord>,
        count: usize,
        results: Results,
        spans: EventSpans,
    ) -> anyhow::Result<Handled> {
        let rest = records.split_off(count.min(records.len()));
        if let Some(last) = records.last() {
            let change = self.attempts.move_past(&last.record);
            self.commits.begin(lent, change, results, spans);
            self.commits.finish().await?;
            self.attempts.moved(change);
        }
        Ok(Handled { outcome: StepOutcome::Handled(records.len()), rest })
    }

    /// Drops everything that depends on the state of the database.
    pub fn forget(&mut self) {
        self.commits.forget();
        self.attempts.forget_position();
        self.scorer.forget();
    }
}

fn process_ended(attempts: i32) -> RecordFault {
    RecordFault {
        stage: "process",
        reason: "process_ended",
        error: format!("the process ended, or lost the partition, during each of {attempts} attempts"),
    }
}
