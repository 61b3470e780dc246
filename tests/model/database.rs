//! The database of the model: pure twins of the statements that decide.
//!
//! A statement or database transaction of the product takes its locks first and commits as a whole, so it is one step
//! here. `super::twins` compares the twins with the statements on a real PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};

use ledger::repository::positions::{Position, PositionMove};
use uuid::Uuid;

use super::scenario::Guards;

/// An event, and so a transaction of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Event {
    pub account: u8,
    pub seq: u8,
}

/// A process from its start to its end. A process that starts again is another owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub process: u8,
    pub start: u8,
}

/// A row of `leases`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lease {
    pub owner: Option<Owner>,
    pub epoch: i64,
    pub is_expired: bool,
}

impl Lease {
    /// `take.sql`. Returns the new epoch, or None if another process owns the lease.
    pub fn take(&mut self, owner: Owner) -> Option<i64> {
        let is_free = self.owner.is_none() || self.is_expired;
        is_free.then(|| {
            *self = Self { owner: Some(owner), epoch: self.epoch + 1, is_expired: false };
            self.epoch
        })
    }

    /// `renew.sql`. Returns the epoch if the process owns the lease.
    pub fn renew(&mut self, owner: Owner) -> Option<i64> {
        (self.owner == Some(owner)).then(|| {
            self.is_expired = false;
            self.epoch
        })
    }

    /// `hold.sql`, the fence of each database transaction under a lease.
    pub fn hold(&mut self, owner: Owner, epoch: i64) -> bool {
        let is_held = self.owner == Some(owner) && self.epoch == epoch;
        self.is_expired &= !is_held;
        is_held
    }

    /// `release.sql`.
    pub fn release(&mut self, owner: Owner) {
        if self.owner == Some(owner) {
            *self = Self { owner: None, epoch: self.epoch, is_expired: true };
        }
    }

    /// `revoke.sql`.
    pub fn revoke(&mut self) {
        *self = Self { owner: None, epoch: self.epoch + 1, is_expired: true };
    }
}

/// A row of `outbox`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    pub id: i64,
    pub event: Event,
}

/// One lane of the outbox, and its sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Outbox {
    pub rows: BTreeSet<Row>,
    pub last_id: i64,
}

impl Outbox {
    /// `scan.sql`.
    pub fn scan(&self, floor: i64, count_max: usize) -> Vec<Row> {
        self.rows.iter().filter(|row| row.id >= floor).take(count_max).copied().collect()
    }

    /// `delete_ranges.sql` for a whole lane, otherwise `delete_rows.sql`. Returns false, and removes nothing, if the range
    /// holds another number of rows.
    pub fn remove(&mut self, published: &[Row], whole: bool) -> bool {
        let ids = published.iter().map(|row| row.id);
        let (Some(first), Some(last)) = (ids.clone().min(), ids.max()) else { return true };
        let goes = |row: &Row| {
            if whole { (first..=last).contains(&row.id) } else { published.contains(row) }
        };
        if whole && self.rows.iter().filter(|row| goes(row)).count() != published.len() {
            return false;
        }
        self.rows.retain(|row| !goes(row));
        true
    }

    /// `id_below_floors.sql`.
    pub fn has_row_below(&self, floor: i64) -> bool {
        self.rows.iter().any(|row| row.id < floor)
    }

    /// `sequences/behind.sql`: the highest id, if the sequence is behind it.
    pub fn highest_id_above_sequence(&self) -> Option<i64> {
        self.rows.last().map(|row| row.id).filter(|highest| *highest > self.last_id)
    }
}

/// A row of `consumer_positions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PositionRow {
    pub position: Position,
    pub is_halted: bool,
}

impl PositionRow {
    /// `advance.sql`.
    pub fn advance(&mut self, change: PositionMove) -> bool {
        let PositionMove { from, to, interrupted, leader_epoch } = change;
        let moves = self.position.next_offset == from && !self.is_halted;
        if moves {
            let log_id = self.position.log_id;
            self.position = Position { next_offset: to, attempts: 0, interrupted, log_id, leader_epoch };
        }
        moves
    }

    /// `positions::note_attempt`.
    pub fn note_attempt(&mut self, offset: i64, attempts: i32) -> bool {
        let notes = self.position.next_offset == offset;
        if notes {
            self.position = Position { attempts, interrupted: true, ..self.position };
        }
        notes
    }

    /// `positions::adopt_log`.
    pub fn adopt_log(&mut self, offset: i64, log_id: Uuid) -> bool {
        let adopts = self.position.next_offset == offset && self.position.log_id.is_none();
        if adopts {
            self.position.log_id = Some(log_id);
        }
        adopts
    }

    /// `positions::halt_here`.
    pub fn halt(&mut self) {
        self.is_halted = true;
    }

    /// `positions::reset`.
    pub fn reset(&mut self, to: i64, log_id: Option<Uuid>) {
        let position = Position { next_offset: to, log_id, ..Position::default() };
        *self = Self { position, is_halted: false };
    }
}

/// Everything that survives the processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Database {
    /// The transactions of the ledger.
    pub ledger: BTreeSet<Event>,
    /// Database transactions that have drawn an id of the outbox and not ended: the row of each account.
    pub open: BTreeMap<u8, Row>,
    pub outbox: Outbox,
    pub lane: Lease,
    pub partition: Lease,
    pub position: PositionRow,
    /// Transactions with an assessment or a dead letter.
    pub handled: BTreeSet<Event>,
    /// Events that were handled while the one before them in their account was missing: counted, logged, alerted.
    pub gaps: BTreeSet<Event>,
}

impl Database {
    /// `assessments::record` and `dead_letters::insert`, with the check for gaps.
    pub fn record(&mut self, events: &[Event], guards: Guards) {
        for event in events {
            let before = Event { seq: event.seq - 1, ..*event };
            if guards.sequence_gaps && before.seq > 0 && !self.handled.contains(&before) {
                self.gaps.insert(*event);
            }
            self.handled.insert(*event);
        }
    }
}
