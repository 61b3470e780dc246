//! A relay of the model: one lane, one request in flight, every statement and every request a step of its own.

use ledger::{
    event::partition_of,
    relay::{Floors, ScanStart, SettledLanes},
    repository::outbox::{DrawnIds, OutboxRow, OutboxScan},
};

use super::{
    database::{Event, Row},
    member::Member,
    scenario::Guards,
    world::World,
};

const LANE: i16 = 0;
/// The most rows of one outbox scan.
const SCAN_MAX: usize = 2;

/// The next step of a relay.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// Scan, or read the drawn ids.
    Idle,
    /// Read the open database transactions. The last drawn id was read before.
    LastIdRead(ScanStart, i64),
    /// Publish.
    RowsRead(Vec<Row>, SettledLanes),
    /// Wait for the acknowledgement, and remove. The flag says whether the rows may be removed as a range.
    Sent(Vec<Row>, SettledLanes, bool),
}

/// A step of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RelayStep {
    ReadLastId,
    ReadOpenTransactions,
    Scan,
    Send,
    /// The relay sends, gives the request up, and the request arrives later.
    SendLate,
    LoseAcknowledgement,
    Remove,
    /// The removal commits, and its answer is lost.
    LoseRemovalAnswer,
    CheckFloors,
    Reconnect,
}

/// A relay.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Relay {
    pub member: Member,
    /// Whether it is configured with another broker.
    pub is_foreign: bool,
    /// The number of partitions that it read at its start.
    partitions: i32,
    floors: Floors,
    stage: Stage,
}

impl Relay {
    pub fn new(process: u8, is_foreign: bool) -> Self {
        let (member, floors) = (Member::new(process), Floors::default());
        Self { member, is_foreign, partitions: 1, floors, stage: Stage::Idle }
    }

    pub fn start(&mut self, world: &World) {
        self.member.start();
        self.partitions = world.partitions;
    }

    pub fn end(&mut self) {
        self.member.end();
        *self = Self { member: self.member.clone(), ..Self::new(0, self.is_foreign) };
    }

    /// A surplus lease is released when it is not in use.
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    pub fn steps(&self) -> &'static [RelayStep] {
        use RelayStep::*;
        match (&self.stage, self.member.lease) {
            (Stage::Idle, None) => &[],
            (Stage::Idle, Some(_)) => &[ReadLastId, Scan, CheckFloors, Reconnect],
            (Stage::LastIdRead(..), _) => &[ReadOpenTransactions],
            (Stage::RowsRead(..), _) => &[Send, SendLate],
            (Stage::Sent(..), _) => &[Remove, LoseAcknowledgement, LoseRemovalAnswer],
        }
    }

    /// Takes a step. Returns false if it changes nothing.
    pub fn step(&mut self, step: RelayStep, world: &mut World, guards: Guards) -> bool {
        match step {
            RelayStep::ReadLastId => self.read_last_id(world),
            RelayStep::ReadOpenTransactions => self.read_open_transactions(world),
            RelayStep::Scan => self.scan(world),
            RelayStep::Send => self.send(world, false),
            RelayStep::SendLate => self.send(world, true),
            RelayStep::LoseAcknowledgement => {
                self.stage = Stage::Idle;
                true
            }
            RelayStep::Remove => self.remove(world, guards, false),
            RelayStep::LoseRemovalAnswer => self.remove(world, guards, true),
            RelayStep::CheckFloors => guards.floor_check && self.check_floors(world),
            RelayStep::Reconnect => {
                self.floors.discard();
                true
            }
        }
    }

    fn read_last_id(&mut self, world: &World) -> bool {
        let last_id = world.database.outbox.last_id;
        let mut floors = self.floors.clone();
        let begin = floors.begin(&[LANE]);
        // The real relay reads the ids again and again. Only a read that could tell something new is a step.
        floors.settle(&begin, drawn(last_id, world));
        let is_news = floors != self.floors;
        if is_news {
            self.stage = Stage::LastIdRead(begin, last_id);
        }
        is_news
    }

    fn read_open_transactions(&mut self, world: &World) -> bool {
        let Stage::LastIdRead(begin, last_id) = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return false;
        };
        self.floors.settle(&begin, drawn(last_id, world));
        true
    }

    fn scan(&mut self, world: &World) -> bool {
        let begin = self.floors.begin(&[LANE]);
        let rows = world.database.outbox.scan(begin.floors[0], SCAN_MAX);
        let scan =
            OutboxScan { rows: rows.iter().map(outbox_row).collect(), is_full: rows.len() >= SCAN_MAX };
        let before = self.floors.clone();
        self.floors.raise(&[LANE], &begin, &scan);
        if rows.is_empty() {
            return self.floors != before;
        }
        self.stage = Stage::RowsRead(rows, begin.settled(&scan));
        true
    }

    fn send(&mut self, world: &mut World, is_late: bool) -> bool {
        let Stage::RowsRead(rows, settled) = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return false;
        };
        let partition = |event: Event| partition_of(&[event.account], self.partitions);
        let events: Vec<(i32, Event)> = rows.iter().map(|row| (partition(row.event), row.event)).collect();
        match (self.is_foreign, is_late) {
            (true, _) => {}
            (false, true) => world.late.push(events),
            (false, false) => world.publish(&events),
        }
        if !is_late {
            self.stage = Stage::Sent(rows, settled, true);
        }
        true
    }

    fn remove(&mut self, world: &mut World, guards: Guards, loses_answer: bool) -> bool {
        let Stage::Sent(rows, settled, may_be_whole) = std::mem::replace(&mut self.stage, Stage::Idle) else {
            return false;
        };
        let database = &mut world.database;
        if !self.member.holds(&mut database.lane, guards, &mut world.history.is_unfenced) {
            self.member.lease = None;
            return !loses_answer;
        }
        let whole = settled.removed_whole(rows.iter().map(|_| LANE)).contains(&LANE);
        let whole = whole && may_be_whole && self.floors.is_current(&settled);
        if !database.outbox.remove(&rows, whole) || loses_answer {
            self.stage = Stage::Sent(rows, settled, false);
        }
        true
    }

    fn check_floors(&mut self, world: &World) -> bool {
        let outbox = &world.database.outbox;
        let assumptions = self.floors.assumptions();
        let is_broken =
            assumptions.sequence_was_set_back(outbox.last_id) || outbox.has_row_below(assumptions.floors[0]);
        if is_broken {
            self.floors.discard();
        }
        is_broken
    }
}

fn drawn(last_id: i64, world: &World) -> DrawnIds {
    DrawnIds { last_id, open: world.database.open.values().map(|row| row.id.to_string()).collect() }
}

fn outbox_row(row: &Row) -> OutboxRow {
    OutboxRow { lane: LANE, id: row.id, ..OutboxRow::default() }
}
