//! Compares the twins of the model with the statements of the product on a real PostgreSQL, state by state.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use diesel_async::SimpleAsyncConnection;
use ledger::{
    event::LANES,
    repository::{
        Connection, RepositoryError, leases,
        outbox::{self, OutboxRowId},
        positions::{self, PartitionName, Position, PositionMove},
        sequences,
    },
};
use uuid::Uuid;

use super::database::{Event, Lease, Outbox, Owner, PositionRow, Row};
use crate::support::postgres::TestDatabase;

const TTL: Duration = Duration::from_secs(3_600);
const NAME: &str = "relay/lane/0";

async fn sql(connection: &mut Connection, text: &str) {
    connection.batch_execute(text).await.expect(text);
}

fn name(owner: Owner) -> String {
    format!("{}-{}", owner.process, owner.start)
}

fn quoted(text: Option<String>) -> String {
    text.map_or_else(|| "NULL".to_owned(), |text| format!("'{text}'"))
}

#[derive(Clone, Copy, Debug)]
enum LeaseStep {
    Take(Owner),
    Renew(Owner),
    Hold(Owner, i64),
    Release(Owner),
    Revoke,
}

impl LeaseStep {
    /// Returns the epoch after a success.
    fn on_twin(self, lease: &mut Lease) -> Option<i64> {
        match self {
            Self::Take(owner) => lease.take(owner),
            Self::Renew(owner) => lease.renew(owner),
            Self::Hold(owner, epoch) => lease.hold(owner, epoch).then_some(epoch),
            Self::Release(owner) => {
                lease.release(owner);
                None
            }
            Self::Revoke => {
                lease.revoke();
                None
            }
        }
    }

    async fn on_postgres(self, connection: &mut Connection) -> Option<i64> {
        let names = [NAME.to_owned()];
        match self {
            Self::Take(owner) => {
                let taken = leases::take(connection, &name(owner), &names, 1, TTL).await.expect("take");
                taken.first().map(|lease| lease.epoch)
            }
            Self::Renew(owner) => {
                let owned = leases::renew(connection, &name(owner), &names, TTL).await.expect("renew");
                owned.first().map(|lease| lease.epoch)
            }
            Self::Hold(owner, epoch) => {
                let lease = leases::Lease::new(NAME.into(), name(owner), epoch, TTL);
                match leases::hold(connection, &[&lease]).await {
                    Ok(()) => Some(epoch),
                    Err(RepositoryError::LeaseLost(_)) => None,
                    Err(error) => panic!("{error}"),
                }
            }
            Self::Release(owner) => {
                leases::release(connection, &name(owner), &names).await.expect("release");
                None
            }
            Self::Revoke => {
                leases::revoke(connection, &names).await.expect("revoke");
                None
            }
        }
    }
}

#[tokio::test]
async fn leases_of_the_model_are_those_of_postgresql() {
    let database = TestDatabase::new().await;
    let mut connection = database.connection().await;
    leases::create(&mut connection, &[NAME.to_owned()]).await.expect("created");
    let [a, restarted, b] = [(0, 0), (0, 1), (1, 0)].map(|(process, start)| Owner { process, start });
    let owners: HashMap<String, Owner> = [a, restarted, b].map(|owner| (name(owner), owner)).into();
    let mut states = vec![Lease { owner: None, epoch: 1, is_expired: true }];
    for owner in [a, restarted, b] {
        states.extend([false, true].map(|is_expired| Lease { owner: Some(owner), epoch: 1, is_expired }));
    }
    let steps = [
        LeaseStep::Take(a),
        LeaseStep::Renew(a),
        LeaseStep::Hold(a, 1),
        LeaseStep::Hold(a, 2),
        LeaseStep::Release(a),
        LeaseStep::Revoke,
    ];
    for before in states {
        for step in steps {
            let owner = quoted(before.owner.map(name));
            let expires = if before.is_expired { "- interval '1 h'" } else { "+ interval '1 h'" };
            let set = format!(
                "UPDATE leases SET owner = {owner}, epoch = {}, expires_at = clock_timestamp() {expires}",
                before.epoch
            );
            sql(&mut connection, &set).await;
            let found = step.on_postgres(&mut connection).await;
            let state = leases::states(&mut connection, &[NAME.to_owned()]).await.expect("state").remove(0);
            let found_row = Lease {
                owner: state.owner.map(|owner| owners[&owner]),
                epoch: state.epoch,
                is_expired: state.remaining_seconds.is_none_or(|seconds| seconds < 0.0),
            };
            let mut twin = before;
            let expected = step.on_twin(&mut twin);
            assert_eq!((found, found_row), (expected, twin), "{step:?} of {before:?}");
        }
    }
}

fn event_id(event: Event) -> Uuid {
    Uuid::from_u128(u128::from(event.account) << 8 | u128::from(event.seq))
}

fn row(id: i64) -> Row {
    Row { id, event: Event { account: 1, seq: u8::try_from(id).expect("small") } }
}

async fn put(connection: &mut Connection, rows: &BTreeSet<Row>) {
    sql(connection, "DELETE FROM outbox").await;
    for Row { id, event } in rows {
        let event = event_id(*event);
        let insert = format!(
            "INSERT INTO outbox (lane, id, topic, event_id, event_type) VALUES (0, {id}, 't', '{event}', 'T')"
        );
        sql(connection, &insert).await;
    }
}

async fn scanned(connection: &mut Connection, floor: i64, count_max: i64) -> Vec<(i64, Uuid)> {
    let scan = outbox::scan(connection, &[0], &[floor], count_max, 1 << 20, 100).await.expect("scan");
    scan.rows.iter().map(|row| (row.id, row.event_id)).collect()
}

fn addresses(rows: impl IntoIterator<Item = Row>) -> Vec<(i64, Uuid)> {
    rows.into_iter().map(|row| (row.id, event_id(row.event))).collect()
}

/// All outboxes with some of the ids 1 to 4.
fn outboxes() -> impl Iterator<Item = Outbox> {
    (0..16_u8).map(|bits| {
        let ids = (1..=4).filter(|id| bits & (1 << (id - 1)) != 0);
        Outbox { rows: ids.map(row).collect(), last_id: 4 }
    })
}

#[tokio::test]
async fn removals_of_the_model_are_those_of_postgresql() {
    let database = TestDatabase::new().await;
    let mut connection = database.connection().await;
    let names = [NAME.to_owned()];
    leases::create(&mut connection, &names).await.expect("created");
    let taken = leases::take(&mut connection, "a", &names, 1, TTL).await.expect("taken").remove(0);
    let lease = leases::Lease::new(taken.name, "a".into(), taken.epoch, TTL);
    let another_event = Row { id: 2, event: Event { account: 2, seq: 9 } };
    let removals: [&[Row]; 6] = [
        &[row(1)],
        &[row(1), row(2)],
        &[row(1), row(3)],
        &[row(2), row(4)],
        &[row(1), another_event],
        &[row(1), row(2), row(3), row(4)],
    ];
    for before in outboxes() {
        for removed in removals {
            for whole in [false, true] {
                put(&mut connection, &before.rows).await;
                let ids: Vec<OutboxRowId> = removed
                    .iter()
                    .map(|row| OutboxRowId { lane: 0, id: row.id, event_id: event_id(row.event) })
                    .collect();
                let lanes = if whole { BTreeSet::from([0]) } else { BTreeSet::new() };
                let leases = std::slice::from_ref(&lease);
                let outcome = outbox::remove(&mut connection, leases, &ids, &lanes, &[]).await;
                let found = !matches!(outcome, Err(RepositoryError::OutboxDiffers { .. }));
                assert!(outcome.is_ok() || !found, "{outcome:?}");
                let mut twin = before.clone();
                let expected = twin.remove(removed, whole);
                assert_eq!(
                    (found, scanned(&mut connection, 0, 100).await),
                    (expected, addresses(twin.rows)),
                    "{removed:?} from {before:?}, whole: {whole}"
                );
            }
        }
    }
}

#[tokio::test]
async fn scans_and_the_sequence_of_the_model_are_those_of_postgresql() {
    let database = TestDatabase::new().await;
    let mut connection = database.connection().await;
    for mut twin in outboxes() {
        put(&mut connection, &twin.rows).await;
        for floor in 0..=5 {
            let expected = addresses(twin.scan(floor, 2));
            assert_eq!(scanned(&mut connection, floor, 2).await, expected, "{twin:?} from {floor}");
            let floors = vec![floor; usize::try_from(LANES).expect("lanes")];
            let below = outbox::id_below_floors(&mut connection, &floors, Duration::from_secs(60)).await;
            let below = below.expect("searched").is_some();
            assert_eq!(below, twin.has_row_below(floor), "{twin:?} below {floor}");
        }
        for last_id in 0..=5 {
            twin.last_id = last_id;
            let set = format!("SELECT setval('outbox_id', {}, {})", last_id.max(1), last_id > 0);
            sql(&mut connection, &set).await;
            let found = match sequences::check(&mut connection).await {
                Ok(()) => None,
                Err(RepositoryError::SequenceBehind { highest_id, .. }) => Some(highest_id),
                Err(error) => panic!("{error}"),
            };
            assert_eq!(found, twin.highest_id_above_sequence(), "{twin:?}");
            assert_eq!(outbox::last_id(&mut connection).await.expect("last id"), last_id);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum PositionStep {
    Advance(PositionMove),
    Note(i64, i32),
    Adopt(i64, Uuid),
    Halt,
    Reset(i64, Option<Uuid>),
}

impl PositionStep {
    fn on_twin(self, row: &mut PositionRow) -> bool {
        match self {
            Self::Advance(change) => row.advance(change),
            Self::Note(offset, attempts) => row.note_attempt(offset, attempts),
            Self::Adopt(offset, log_id) => row.adopt_log(offset, log_id),
            Self::Halt => {
                row.halt();
                true
            }
            Self::Reset(to, log_id) => {
                row.reset(to, log_id);
                true
            }
        }
    }

    async fn on_postgres(self, connection: &mut Connection, name: &PartitionName) -> bool {
        let outcome = match self {
            Self::Advance(change) => positions::advance(connection, name, change).await,
            Self::Note(offset, attempts) => positions::note_attempt(connection, name, offset, attempts).await,
            Self::Adopt(offset, log_id) => positions::adopt_log(connection, name, offset, log_id).await,
            Self::Halt => positions::halt_here(connection, name, "reason").await,
            Self::Reset(to, log_id) => positions::reset(connection, name, to, log_id).await.map(drop),
        };
        match outcome {
            Ok(()) => true,
            Err(RepositoryError::PositionMoved(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Every kind of stored position at offset 3.
fn stored_positions(log_id: Uuid) -> Vec<PositionRow> {
    let mut rows = Vec::new();
    for (attempts, interrupted) in [(0, false), (0, true), (1, true)] {
        for log_id in [None, Some(log_id)] {
            for leader_epoch in [None, Some(1)] {
                for is_halted in [false, true] {
                    let position = Position { next_offset: 3, attempts, interrupted, log_id, leader_epoch };
                    rows.push(PositionRow { position, is_halted });
                }
            }
        }
    }
    rows
}

#[tokio::test]
async fn positions_of_the_model_are_those_of_postgresql() {
    let database = TestDatabase::new().await;
    let mut connection = database.connection().await;
    let name = PartitionName { group: "g".into(), topic: "t".into(), partition: 0 };
    let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let change = |from| PositionMove { from, to: 5, interrupted: from == 3, leader_epoch: Some(2) };
    let steps = [
        PositionStep::Advance(change(3)),
        PositionStep::Advance(change(2)),
        PositionStep::Note(3, 0),
        PositionStep::Note(3, 2),
        PositionStep::Note(4, 1),
        PositionStep::Adopt(3, second),
        PositionStep::Adopt(4, second),
        PositionStep::Halt,
        PositionStep::Reset(0, Some(second)),
    ];
    positions::create(&mut connection, &name, 0, None).await.expect("created");
    for before in stored_positions(first) {
        for step in steps {
            let Position { next_offset, attempts, interrupted, log_id, leader_epoch } = before.position;
            let log_id = quoted(log_id.map(|id| id.to_string()));
            let epoch = leader_epoch.map_or_else(|| "NULL".to_owned(), |epoch| epoch.to_string());
            let halt = if before.is_halted { "clock_timestamp()" } else { "NULL" };
            let reason = quoted(before.is_halted.then(|| "reason".to_owned()));
            let set = format!(
                "UPDATE consumer_positions SET next_offset = {next_offset}, attempts = {attempts},
                 interrupted = {interrupted}, log_id = {log_id}, leader_epoch = {epoch}, halted_at = {halt},
                 halt_reason = {reason}"
            );
            sql(&mut connection, &set).await;
            let found = step.on_postgres(&mut connection, &name).await;
            let position = positions::read(&mut connection, &name).await.expect("read").expect("a row");
            let is_halted = positions::halt(&mut connection, &name).await.expect("read").is_some();
            let mut twin = before;
            let expected = step.on_twin(&mut twin);
            assert_eq!(
                (found, PositionRow { position, is_halted }),
                (expected, twin),
                "{step:?} of {before:?}"
            );
        }
    }
}
