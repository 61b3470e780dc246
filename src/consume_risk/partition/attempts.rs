//! How the records at a partition's position are attempted: together, one by one, or not any more. Pure: it decides,
//! and [`PartitionConsumer`](super::PartitionConsumer) carries the decisions out.
//!
//! ```text
//!              ┌─▶ batch ──┬─ all handled ─────────────▶ the position moves past them
//!              │           └─ record n has a fault ────▶ the position moves to n, n is retried alone
//!  position ───┤
//!              ├─▶ alone ──┬─ handled ─────────────────▶ the position moves past it
//!              │     ▲     ├─ fault, attempts are left ─┐
//!              │     └─────┼────────────────────────────┘
//!              │           └─ fault, none is left ─┐
//!              └─▶ exhausted ──────────────────────┴───▶ a dead letter, the position moves past it
//! ```
//!
//! A record that cannot be decoded is no fault here: it needs no attempt, and the consumer dead-letters it together with
//! the results of the records around it.
//!
//! Guarantees:
//! - An attempt of a single record is noted before it is made, and so is the first batch of an owner. If such an
//!   attempt ends the process, the next owner finds the note.
//! - After an interrupted batch, its records are attempted one by one. Only the record that ends the process runs out
//!   of attempts.
//! - An attempt that an outage ends does not count against its record.
//!
//! The model in `tests/model` explores this code together with leases, broker and faults.

use crate::{
    broker::{FetchedRecord, LogOffset},
    repository::positions::{Position, PositionMove},
};

/// The next action for the records at the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAttempt {
    /// Handle them together.
    Batch {
        /// Note the attempt first.
        must_note: bool,
    },
    /// Handle the first record alone.
    Alone {
        /// The number of the attempt, from 1.
        number: i32,
        /// Note the attempt first. False for an attempt that an outage ended: it is made again under the same number.
        must_note: bool,
    },
    /// The first record has used all its attempts, and none of them had an outcome.
    Exhausted {
        /// How many there were.
        attempts: i32,
    },
}

/// The position of one partition and the attempts at its records, for as long as one owner holds the lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attempts {
    attempts_max: i32,
    position: Position,
    /// False until the position is read from the database, and after each failure.
    is_position_current: bool,
    /// Whether this owner has noted an attempt.
    has_noted: bool,
    /// Records before this offset are attempted one by one.
    one_by_one_until: Option<i64>,
    /// The offset of a noted attempt that has no outcome yet.
    open_attempt: Option<i64>,
}

impl Attempts {
    /// Creates the state, with `attempts_max` attempts for each record. The position is not known yet.
    pub fn new(attempts_max: i32) -> Self {
        Self {
            attempts_max,
            position: Position::default(),
            is_position_current: false,
            has_noted: false,
            one_by_one_until: None,
            open_attempt: None,
        }
    }

    /// The position in memory, which is ahead of the database while a commit is in flight.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns where the next reader starts. The broker compares the log and the leader epoch with its own.
    pub fn log_offset(&self) -> LogOffset {
        let Position { next_offset, log_id, leader_epoch, .. } = self.position;
        LogOffset { offset: next_offset, log_id, leader_epoch }
    }

    /// Returns false if the position must be read from the database.
    pub fn is_position_current(&self) -> bool {
        self.is_position_current
    }

    /// Takes over the position that the database holds.
    pub fn start_at(&mut self, position: Position) {
        self.position = position;
        self.is_position_current = true;
    }

    /// Requires the position to be read again. What was learned about its records stays.
    pub fn forget_position(&mut self) {
        self.is_position_current = false;
    }

    /// Retries one by one the batch that an earlier owner began and never finished. It reached at most to `end`.
    /// Returns false if there is no such batch.
    pub fn retry_interrupted_batch(&mut self, end: i64) -> bool {
        let is_found = self.position.interrupted && !self.has_noted && self.one_by_one_until.is_none();
        if is_found {
            self.one_by_one_until = Some(end);
        }
        is_found
    }

    /// Decides how the records at the position are attempted.
    pub fn next(&self) -> NextAttempt {
        let Position { next_offset, attempts, .. } = self.position;
        if attempts == 0 && !self.is_one_by_one(next_offset) {
            return NextAttempt::Batch { must_note: !self.has_noted };
        }
        let is_open = self.open_attempt == Some(next_offset);
        let number = if is_open { attempts } else { attempts.saturating_add(1) };
        if number > self.attempts_max {
            return NextAttempt::Exhausted { attempts };
        }
        NextAttempt::Alone { number, must_note: !is_open }
    }

    /// Records that the batch at the position is noted in the database.
    pub fn batch_noted(&mut self) {
        self.has_noted = true;
        self.position.attempts = 0;
    }

    /// Records that an attempt of the record at the position is noted in the database. The attempt is open until the
    /// position moves or [`Attempts::attempt_failed`] is called.
    pub fn attempt_noted(&mut self, number: i32) {
        self.has_noted = true;
        self.position.attempts = number;
        self.open_attempt = Some(self.position.next_offset);
    }

    /// Records that the record itself made the attempt fail, so that the attempt counts.
    pub fn attempt_failed(&mut self) {
        self.open_attempt = None;
    }

    /// Records that the batch ended before the record at `offset`, which has a fault. That record is retried alone.
    pub fn batch_stopped_at(&mut self, offset: i64) {
        self.one_by_one_until = Some(offset + 1);
    }

    /// Returns the move of the position past a record.
    pub fn move_past(&self, record: &FetchedRecord) -> PositionMove {
        self.move_to(record.offset + 1, record.leader_epoch)
    }

    /// Returns the move of the position to `to`, before which every record is handled. `leader_epoch` belongs to the record
    /// or marker before `to`.
    pub fn move_to(&self, to: i64, leader_epoch: Option<i32>) -> PositionMove {
        let interrupted = self.is_one_by_one(to);
        PositionMove { from: self.position.next_offset, to, interrupted, leader_epoch }
    }

    /// Records that the move is being committed, or is committed.
    pub fn moved(&mut self, PositionMove { to, interrupted, leader_epoch, .. }: PositionMove) {
        self.position = Position { next_offset: to, attempts: 0, interrupted, leader_epoch, ..self.position };
        self.open_attempt = None;
        if !interrupted {
            self.one_by_one_until = None;
        }
    }

    /// The offset of an attempt that was noted and has no outcome.
    pub fn open_attempt(&self) -> Option<i64> {
        self.open_attempt
    }

    fn is_one_by_one(&self, offset: i64) -> bool {
        self.one_by_one_until.is_some_and(|until| offset < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPTS_MAX: i32 = 3;

    fn at(next_offset: i64, attempts: i32, interrupted: bool) -> Attempts {
        let mut owner = Attempts::new(ATTEMPTS_MAX);
        owner.start_at(stored(next_offset, attempts, interrupted));
        owner
    }

    fn stored(next_offset: i64, attempts: i32, interrupted: bool) -> Position {
        Position { next_offset, attempts, interrupted, ..Position::default() }
    }

    fn moving(from: i64, to: i64, interrupted: bool) -> PositionMove {
        PositionMove { from, to, interrupted, leader_epoch: None }
    }

    fn past(owner: &Attempts, offset: i64) -> PositionMove {
        owner.move_to(offset + 1, None)
    }

    #[test]
    fn the_first_batch_of_an_owner_is_noted_and_later_ones_are_not() {
        let mut owner = at(10, 0, false);
        assert_eq!(owner.next(), NextAttempt::Batch { must_note: true });
        owner.batch_noted();
        owner.moved(past(&owner, 19));
        assert_eq!(owner.next(), NextAttempt::Batch { must_note: false });
        owner.forget_position();
        owner.start_at(stored(10, 0, true));
        assert!(!owner.retry_interrupted_batch(30), "an outage is not an interrupted owner");
        assert_eq!(owner.next(), NextAttempt::Batch { must_note: false });
    }

    /// Seen to fail with these planted bugs: a range of one record, and a range that is lost when the position moves.
    #[test]
    fn a_batch_that_an_earlier_owner_did_not_finish_is_retried_one_by_one_up_to_its_end() {
        let mut owner = at(10, 0, true);
        assert!(owner.retry_interrupted_batch(12));
        for offset in [10, 11] {
            assert_eq!(owner.next(), NextAttempt::Alone { number: 1, must_note: true });
            owner.attempt_noted(1);
            let expected = moving(offset, offset + 1, offset == 10);
            assert_eq!(past(&owner, offset), expected);
            owner.moved(expected);
        }
        assert_eq!(owner.next(), NextAttempt::Batch { must_note: false });
    }

    #[test]
    fn a_record_with_a_fault_is_attempted_alone_until_it_is_exhausted() {
        let mut owner = at(10, 0, false);
        owner.batch_noted();
        owner.moved(past(&owner, 13));
        owner.batch_stopped_at(14);
        for number in 1..=ATTEMPTS_MAX {
            assert_eq!(owner.next(), NextAttempt::Alone { number, must_note: true });
            owner.attempt_noted(number);
            owner.attempt_failed();
        }
        assert_eq!(owner.next(), NextAttempt::Exhausted { attempts: ATTEMPTS_MAX });
        let passing = past(&owner, 14);
        assert_eq!(passing, moving(14, 15, false));
        owner.moved(passing);
        assert_eq!(owner.next(), NextAttempt::Batch { must_note: false });
    }

    #[test]
    fn a_fault_behind_a_gap_of_offsets_is_attempted_alone() {
        let mut owner = at(10, 0, false);
        owner.batch_noted();
        owner.moved(past(&owner, 11));
        owner.batch_stopped_at(17);
        assert!(matches!(owner.next(), NextAttempt::Alone { number: 1, .. }));
        owner.moved(past(&owner, 17));
        assert_eq!(owner.next(), NextAttempt::Batch { must_note: false });
    }

    #[test]
    fn an_attempt_that_an_outage_ends_is_made_again_under_the_same_number() {
        let mut owner = at(10, 1, true);
        assert_eq!(owner.next(), NextAttempt::Alone { number: 2, must_note: true });
        owner.attempt_noted(2);
        for _outage in 0..5 {
            owner.forget_position();
            owner.start_at(stored(10, 2, true));
            assert_eq!(owner.next(), NextAttempt::Alone { number: 2, must_note: false });
            assert_eq!(owner.open_attempt(), Some(10));
        }
        owner.attempt_failed();
        assert_eq!(owner.next(), NextAttempt::Alone { number: 3, must_note: true });
    }

    /// A record of the model below.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Record {
        Good,
        /// Cannot be decoded.
        Undecodable,
        /// Fails at every attempt.
        Poison,
        /// Ends the process at every attempt.
        Fatal,
    }

    /// A partition and its row in the database.
    struct Model {
        records: Vec<Record>,
        row: Position,
        handled: Vec<i64>,
        dead_letters: Vec<(i64, i32)>,
    }

    impl Model {
        fn record(&self, offset: i64) -> Record {
            self.records[usize::try_from(offset).expect("not negative")]
        }

        fn end(&self) -> i64 {
            i64::try_from(self.records.len()).expect("few")
        }

        /// Returns the first offset whose record is none of `records`, or the end.
        fn end_of(&self, mut offsets: std::ops::Range<i64>, records: &[Record]) -> i64 {
            let end = offsets.end;
            offsets.find(|offset| !records.contains(&self.record(*offset))).unwrap_or(end)
        }

        fn note(&mut self, attempts: i32) {
            self.row = Position { attempts, interrupted: true, ..self.row };
        }

        fn commit(&mut self, owner: &mut Attempts, change: PositionMove) {
            assert_eq!(change.from, self.row.next_offset, "the position moves from where it is");
            self.row = stored(change.to, 0, change.interrupted);
            owner.moved(change);
        }

        /// Handles records that are good or cannot be decoded, in one commit.
        fn finish(&mut self, owner: &mut Attempts, offsets: std::ops::Range<i64>) {
            for offset in offsets.clone() {
                match self.record(offset) {
                    Record::Good => self.handled.push(offset),
                    _ => self.dead_letters.push((offset, 1)),
                }
            }
            if !offsets.is_empty() {
                self.commit(owner, past(owner, offsets.end - 1));
            }
        }

        /// Makes one step as the consumer does. Returns false if the process ended.
        fn step(&mut self, owner: &mut Attempts, batch_size: i64) -> bool {
            let first = owner.position().next_offset;
            let end = self.end().min(first + batch_size);
            owner.retry_interrupted_batch(end);
            match owner.next() {
                NextAttempt::Alone { .. } | NextAttempt::Exhausted { .. }
                    if self.record(first) == Record::Undecodable =>
                {
                    let stop = self.end_of(first..end, &[Record::Undecodable]);
                    self.finish(owner, first..stop);
                }
                NextAttempt::Exhausted { attempts } => {
                    self.dead_letters.push((first, attempts));
                    self.commit(owner, past(owner, first));
                }
                NextAttempt::Alone { number, must_note } => {
                    if must_note {
                        self.note(number);
                        owner.attempt_noted(number);
                    }
                    match self.record(first) {
                        Record::Fatal => return false,
                        Record::Good | Record::Undecodable => self.finish(owner, first..first + 1),
                        Record::Poison => {
                            owner.attempt_failed();
                            if number == ATTEMPTS_MAX {
                                self.dead_letters.push((first, number));
                                self.commit(owner, past(owner, first));
                            }
                        }
                    }
                }
                NextAttempt::Batch { must_note } => {
                    if must_note {
                        self.note(0);
                        owner.batch_noted();
                    }
                    let stop = self.end_of(first..end, &[Record::Good, Record::Undecodable]);
                    if stop < end && self.record(stop) == Record::Fatal {
                        return false;
                    }
                    self.finish(owner, first..stop);
                    if stop < end {
                        owner.batch_stopped_at(stop);
                    }
                }
            }
            true
        }
    }

    /// Seen to fail with these planted bugs: attempts that are not noted (the process ends for ever), and a position
    /// that moves one record too far (that record is never handled).
    #[test]
    fn every_record_is_handled_or_dead_lettered_once_whatever_ends_the_process() {
        use Record::{Fatal, Good, Poison, Undecodable};
        let records = vec![
            Good,
            Undecodable,
            Good,
            Fatal,
            Undecodable,
            Undecodable,
            Good,
            Poison,
            Undecodable,
            Fatal,
            Poison,
            Good,
            Undecodable,
            Good,
            Undecodable,
            Poison,
            Good,
        ];
        for batch_size in 1..=17 {
            let row = stored(0, 0, false);
            let mut model =
                Model { records: records.clone(), row, handled: Vec::new(), dead_letters: Vec::new() };
            let mut owners = 0;
            while model.row.next_offset < model.end() {
                owners += 1;
                assert!(owners < 20, "the process ends for ever at {:?}", model.row);
                let mut owner = Attempts::new(ATTEMPTS_MAX);
                owner.start_at(model.row);
                while model.row.next_offset < model.end() && model.step(&mut owner, batch_size) {}
            }
            let offsets = |wanted: fn(Record) -> bool| -> Vec<i64> {
                (0..model.end()).filter(|offset| wanted(model.record(*offset))).collect()
            };
            assert_eq!(model.handled, offsets(|record| record == Good), "batches of {batch_size}");
            let given_up: Vec<i64> = model.dead_letters.iter().map(|(offset, _)| *offset).collect();
            assert_eq!(given_up, offsets(|record| record != Good), "batches of {batch_size}");
            let attempts_wanted = |offset| match model.record(offset) {
                Undecodable => 1,
                _ => ATTEMPTS_MAX,
            };
            assert!(
                model.dead_letters.iter().all(|(offset, attempts)| *attempts == attempts_wanted(*offset))
            );
        }
    }
}
