//! A consumer of the model: one partition, at most one commit in flight, read-ahead.

use ledger::{
    broker::LogOffset,
    consume_risk::{Attempts, LogCheck, NextAttempt},
    repository::positions::{Position, PositionMove},
};

use super::{broker::Record, database::Event, member::Member, scenario::Guards, world::World};

const ATTEMPTS_MAX: i32 = 3;
/// The most records of one batch.
const BATCH_MAX: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct InFlight {
    change: PositionMove,
    events: Vec<Event>,
}

/// The task of the partition, with everything that it has in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Task {
    attempts: Attempts,
    /// The position that was read and not yet compared with the log.
    read: Option<Position>,
    /// Where the next fetch begins.
    reader: Option<LogOffset>,
    fetched: Vec<Record>,
    in_flight: Option<InFlight>,
    is_halting: bool,
}

impl Task {
    fn new() -> Self {
        let attempts = Attempts::new(ATTEMPTS_MAX);
        Self { attempts, read: None, reader: None, fetched: Vec::new(), in_flight: None, is_halting: false }
    }

    /// Drops everything that depends on the state of the database.
    fn forget(&mut self) {
        let mut attempts = self.attempts.clone();
        attempts.forget_position();
        *self = Self { attempts, ..Self::new() };
    }
}

/// A step of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConsumerStep {
    ReadPosition,
    CompareLogs,
    Fetch,
    NoteAttempt,
    Commit,
    /// The commit succeeds, and its answer is lost.
    LoseCommitAnswer,
    Halt,
}

/// A consumer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Consumer {
    pub member: Member,
    task: Task,
}

impl Consumer {
    pub fn new(process: u8) -> Self {
        Self { member: Member::new(process), task: Task::new() }
    }

    pub fn end(&mut self) {
        self.member.end();
        self.task = Task::new();
    }

    /// The task ends with its lease.
    pub fn lose_lease(&mut self) {
        self.member.lease = None;
        self.task = Task::new();
    }

    pub fn is_idle(&self) -> bool {
        self.task.in_flight.is_none()
    }

    pub fn steps(&self) -> Vec<ConsumerStep> {
        use ConsumerStep::*;
        let Task { attempts, read, reader, fetched, in_flight, is_halting } = &self.task;
        if self.member.lease.is_none() {
            return Vec::new();
        }
        let is_ready = in_flight.is_none() && !fetched.is_empty() && !is_halting;
        [
            (!attempts.is_position_current() && read.is_none() && !is_halting, ReadPosition),
            (read.is_some(), CompareLogs),
            (reader.is_some() && fetched.is_empty() && !is_halting, Fetch),
            (is_ready, NoteAttempt),
            (in_flight.is_some(), Commit),
            (in_flight.is_some(), LoseCommitAnswer),
            (*is_halting && in_flight.is_none(), Halt),
        ]
        .into_iter()
        .filter_map(|(is_possible, step)| is_possible.then_some(step))
        .collect()
    }

    /// Takes a step. Returns false if it changes nothing.
    pub fn step(&mut self, step: ConsumerStep, world: &mut World, guards: Guards) -> bool {
        match step {
            ConsumerStep::ReadPosition => self.read_position(world),
            ConsumerStep::CompareLogs => self.compare_logs(world, guards),
            ConsumerStep::Fetch => self.fetch(world, guards),
            ConsumerStep::NoteAttempt => self.note_attempt(world, guards),
            ConsumerStep::Commit => self.commit(world, guards, false),
            ConsumerStep::LoseCommitAnswer => self.commit(world, guards, true),
            ConsumerStep::Halt => self.halt(world, guards),
        }
    }

    fn read_position(&mut self, world: &World) -> bool {
        let row = world.database.position;
        self.task.read = (!row.is_halted).then_some(row.position);
        !row.is_halted
    }

    fn compare_logs(&mut self, world: &mut World, guards: Guards) -> bool {
        let Some(position) = self.task.read.take() else { return false };
        let found = guards.log_identity.then_some(world.log.id);
        match LogCheck::new(position.log_id, found) {
            LogCheck::Fits => self.start_at(position),
            LogCheck::Adopt(log_id) => {
                let adopted = self.commits(world, guards, |row| row.adopt_log(position.next_offset, log_id));
                if adopted {
                    self.start_at(Position { log_id: Some(log_id), ..position });
                }
            }
            LogCheck::Replaced { .. } => self.task.is_halting = true,
        }
        true
    }

    fn start_at(&mut self, position: Position) {
        self.task.attempts.start_at(position);
        self.task.reader = Some(self.task.attempts.log_offset());
    }

    fn fetch(&mut self, world: &mut World, guards: Guards) -> bool {
        let Some(from) = self.task.reader else { return false };
        match world.log.fetch(from, BATCH_MAX) {
            Ok(records) => {
                let is_skip = self.finds_skipped(from.offset, world);
                if let Some(last) = records.last() {
                    self.task.reader = Some(from.advanced_to(last.offset + 1, Some(last.leader_epoch)));
                }
                self.task.fetched = records;
                self.begin_commit(world);
                is_skip || !self.is_idle() || !self.task.fetched.is_empty()
            }
            Err(error) => {
                assert!(error.is_position_lost(), "{error}");
                // Without the guard the halt is kept in memory only: the consumer asks again until the log is long enough.
                self.task.is_halting = guards.log_identity;
                guards.log_identity
            }
        }
    }

    /// A fetch from here passes every record before it. Notes the first record that no consumer has handled.
    fn finds_skipped(&self, from: i64, world: &mut World) -> bool {
        let in_flight = self.task.in_flight.as_ref();
        let is_handled = |event: &Event| {
            world.database.handled.contains(event)
                || in_flight.is_some_and(|commit| commit.events.contains(event))
        };
        let passed = world.log.records.iter().filter(|record| record.offset < from);
        let skipped = passed.map(|record| record.event).find(|event| !is_handled(event));
        world.history.skipped = world.history.skipped.or(skipped);
        skipped.is_some()
    }

    /// Decides how the records at the position are attempted.
    fn next_attempt(&mut self, world: &World) -> NextAttempt {
        let attempts = &mut self.task.attempts;
        let batch_end = attempts.position().next_offset + i64::try_from(BATCH_MAX).expect("small");
        attempts.retry_interrupted_batch(world.log.end.min(batch_end));
        attempts.next()
    }

    fn note_attempt(&mut self, world: &mut World, guards: Guards) -> bool {
        let number = match self.next_attempt(world) {
            NextAttempt::Batch { must_note: true } => 0,
            NextAttempt::Alone { number, must_note: true } => number,
            _ => return false,
        };
        let offset = self.task.attempts.position().next_offset;
        if self.commits(world, guards, |row| row.note_attempt(offset, number)) {
            match number {
                0 => self.task.attempts.batch_noted(),
                number => self.task.attempts.attempt_noted(number),
            }
            self.begin_commit(world);
        }
        true
    }

    /// Begins the commit of the records that were fetched, unless the attempt must be noted first. Only the memory of the
    /// consumer changes, so this is no step of its own.
    fn begin_commit(&mut self, world: &World) {
        let Task { in_flight, fetched, is_halting, .. } = &self.task;
        if in_flight.is_some() || fetched.is_empty() || *is_halting {
            return;
        }
        let count = match self.next_attempt(world) {
            NextAttempt::Batch { must_note: false } => self.task.fetched.len(),
            NextAttempt::Alone { must_note: false, .. } | NextAttempt::Exhausted { .. } => 1,
            _ => return,
        };
        let records: Vec<Record> = self.task.fetched.drain(..count).collect();
        let last = records.last().expect("a record");
        let change = self.task.attempts.move_to(last.offset + 1, Some(last.leader_epoch));
        self.task.attempts.moved(change);
        let events = records.iter().map(|record| record.event).collect();
        self.task.in_flight = Some(InFlight { change, events });
    }

    fn commit(&mut self, world: &mut World, guards: Guards, loses_answer: bool) -> bool {
        let Some(InFlight { change, events }) = self.task.in_flight.take() else { return false };
        world.history.moved_back |= change.to <= change.from;
        if self.commits(world, guards, |row| row.advance(change)) {
            world.database.record(&events, guards);
            match loses_answer {
                true => self.task.forget(),
                false => self.begin_commit(world),
            }
        }
        true
    }

    fn halt(&mut self, world: &mut World, guards: Guards) -> bool {
        self.commits(world, guards, |row| {
            row.halt();
            true
        });
        self.task.forget();
        true
    }

    /// Runs a database transaction under the lease. If it fails, the memory is not trusted.
    fn commits(
        &mut self,
        world: &mut World,
        guards: Guards,
        change: impl FnOnce(&mut super::database::PositionRow) -> bool,
    ) -> bool {
        let database = &mut world.database;
        if !self.member.holds(&mut database.partition, guards, &mut world.history.is_unfenced) {
            self.lose_lease();
            return false;
        }
        let is_done = change(&mut database.position);
        if !is_done {
            self.task.forget();
        }
        is_done
    }
}
