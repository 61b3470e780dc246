//! One partition under one lease: read, assess, commit, in offset order.
//!
//! ```text
//!            ┌── all handled ──▶ commit results + position ──┐
//! batch ─────┤                                               ├──▶ next batch
//!            └── one cannot be: commit those before it,      │
//!                then that one alone: note the try, commit, try … dead letter + position
//! ```
//!
//! While one batch commits, on a connection of its own, the next one is read and scored; what rests on a commit that
//! fails is thrown away with it. Guarantees: results, their announcement and the position commit together, under the lease's fence; the position
//! never passes a record that has neither a result nor a dead letter; trouble of the infrastructure is waited out for
//! ever. The first batch of a new owner is noted before it is tried: if it ends the process, the owner after that finds
//! the note and tries the records one by one, so that only the fatal one is put aside. A record whose try was ended
//! before is tried while no other such record of the process is: the others, noted in the same instant, would be blamed
//! with it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::sync::{Mutex, watch};
use tokio_util::task::AbortOnDropHandle;

use super::{
    assess::{Assessed, assess},
    cache::HistoryCache,
    dead_letter::dead_letter,
    decode::{Unhandled, decode},
    memory::Memory,
    reader::{Item, Reader, Source},
    trace,
};
use crate::{
    broker::{BrokerError, SharedBroker},
    repository::{
        self, Connection, RepositoryError, assessments, dead_letters, leases,
        positions::{self, PartitionName, Position},
        postings, transaction,
    },
    risk::Ruleset,
    runtime::{Backoff, Context, Lease, Stop, Trouble, fail_point},
};

const RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Between the tries of a record that cannot be handled.
const TRY_AGAIN_WAIT: Duration = Duration::from_millis(50);
/// Between looks at a partition that was halted because its position is outside of what the broker holds.
const HALTED_WAIT: Duration = Duration::from_secs(10);

/// What one turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Records that the position moved over.
    Handled(usize),
    /// Nothing new within the longest wait.
    Idle,
    /// A record was tried in vain and will be tried again.
    TriedInVain,
}

/// A batch on its way into the database.
struct Commit {
    to: i64,
    /// Gives the connection back.
    task: AbortOnDropHandle<Result<Connection, RepositoryError>>,
}

/// Consumes one partition.
pub struct PartitionConsumer {
    context: Context,
    broker: SharedBroker,
    rules: watch::Receiver<Arc<Ruleset>>,
    name: PartitionName,
    lease: Lease,
    connection: Option<Connection>,
    commit_connection: Option<Connection>,
    commit: Option<Commit>,
    reader: Option<Reader>,
    memory: Arc<Memory>,
    cache: HistoryCache,
    /// The version that the cache was made for.
    cached_for: Option<Arc<str>>,
    position: Option<Position>,
    /// Whether this owner has noted its first batch.
    is_noted: bool,
    /// Records before this offset are tried one by one.
    careful_until: Option<i64>,
    /// A noted try that trouble ended: it does not count against the record.
    open_try: Option<i64>,
    /// Shared by the partitions of the process; held during a try that may end it.
    turn: Arc<Mutex<()>>,
}

impl PartitionConsumer {
    /// Nothing is read before the first turn.
    pub fn new(
        context: Context,
        broker: SharedBroker,
        rules: watch::Receiver<Arc<Ruleset>>,
        name: PartitionName,
        lease: Lease,
    ) -> Self {
        let mut cache = HistoryCache::default();
        cache.limit(Memory::of(1).histories_bytes_max());
        Self {
            context,
            broker,
            rules,
            name,
            lease,
            connection: None,
            commit_connection: None,
            commit: None,
            reader: None,
            memory: Arc::new(Memory::of(1)),
            cache,
            cached_for: None,
            position: None,
            is_noted: false,
            careful_until: None,
            open_try: None,
            turn: Arc::default(),
        }
    }

    /// Lets it try suspicious records only when no other partition with this `turn` does.
    pub fn taking_turns(self, turn: Arc<Mutex<()>>) -> Self {
        Self { turn, ..self }
    }

    /// Uses its part of this memory instead of one of its own.
    pub fn sharing(mut self, memory: Arc<Memory>) -> Self {
        self.cache.limit(memory.histories_bytes_max());
        self.memory = memory;
        self
    }

    /// Turns until asked to stop or until the lease is lost. A turn in progress is dropped at a stop: what it had not
    /// committed never happened.
    pub async fn run(mut self, stop: Stop) {
        let mut backoff = Backoff::new(RETRY_WAIT_MIN, RETRY_WAIT_MAX);
        let mut trouble = Trouble::new(format!("consuming {}", self.name));
        while !stop.is_requested() {
            let turn = tokio::select! {
                turn = self.run_once() => turn,
                () = stop.requested() => break,
            };
            match turn {
                Ok(turn) => {
                    trouble.over();
                    backoff.reset();
                    self.halted(false);
                    if turn == Turn::TriedInVain {
                        pause(TRY_AGAIN_WAIT, &stop).await;
                    }
                }
                Err(error) => {
                    let repository = error.downcast_ref::<RepositoryError>();
                    if matches!(repository, Some(RepositoryError::LeaseLost(_))) {
                        tracing::info!(partition = %self.name, "the lease was lost");
                        break;
                    }
                    trouble.met(&format!("{error:#}"));
                    let broker = error.downcast_ref::<BrokerError>();
                    if matches!(broker, Some(BrokerError::OffsetOutOfRange { .. })) {
                        self.halted(true);
                        pause(HALTED_WAIT, &stop).await;
                    } else {
                        backoff.wait(&stop).await;
                    }
                }
            }
        }
        if let Err(error) = self.finish_commit().await {
            tracing::debug!(partition = %self.name, "the last commit: {error:#}");
        }
        self.give_back_open_try().await;
        // Whoever owns it next tells how it is.
        self.show_lag(0);
        self.halted(false);
    }

    /// One turn: at most one batch, whose commit may still be under way when it returns. After an error nothing in
    /// memory is trusted; the next turn begins at the position that the database has.
    pub async fn run_once(&mut self) -> anyhow::Result<Turn> {
        let turn = self.connected_turn().await;
        if turn.is_err() {
            self.forget();
        }
        turn
    }

    async fn connected_turn(&mut self) -> anyhow::Result<Turn> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let turn = self.turn(&mut connection).await?;
        self.connection = Some(connection);
        Ok(turn)
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let mut connection = repository::connect(&self.context.config.database, "consume-risk").await?;
        postings::prepare_writer(&mut connection).await?;
        Ok(connection)
    }

    async fn turn(&mut self, connection: &mut Connection) -> anyhow::Result<Turn> {
        let position = self.position(connection).await?;
        let context = self.context.clone();
        let config = &context.config.consume_risk;
        let reader = self.reader.get_or_insert_with(|| {
            let source = Source {
                broker: self.broker.clone(),
                name: self.name.clone(),
                wait_max: config.poll_interval_max,
                batch_size_max: config.batch_size_max,
                memory: Arc::clone(&self.memory),
            };
            Reader::start(source, position.next_offset)
        });
        let items = reader.next(config.batch_size_max).await.map_err(|error| halt_text(error, &self.name))?;
        let high_watermark = reader.high_watermark();
        let Some(items) = items else {
            self.finish_commit().await?;
            self.show_lag(high_watermark - position.next_offset);
            return Ok(Turn::Idle);
        };
        if position.interrupted && !self.is_noted && self.careful_until.is_none() {
            let batch = i64::try_from(config.batch_size_max).unwrap_or(i64::MAX);
            self.careful_until = Some(high_watermark.min(position.next_offset.saturating_add(batch)));
            tracing::warn!(partition = %self.name, offset = position.next_offset,
                "the last owner did not end its batch: trying its records one by one");
        }
        let turn = match self.is_careful(position.next_offset) || position.attempts > 0 {
            true => {
                self.finish_commit().await?;
                self.handle_first_alone(connection, position, items).await?
            }
            false => self.handle_batch(connection, position, items).await?,
        };
        self.show_lag(high_watermark - self.position.map_or(high_watermark, |position| position.next_offset));
        Ok(turn)
    }

    async fn position(&mut self, connection: &mut Connection) -> anyhow::Result<Position> {
        if let Some(position) = self.position {
            return Ok(position);
        }
        let mut found = positions::read(connection, &self.name).await?;
        if found.is_none() {
            let range = self.broker.offset_range(&self.name.topic, self.name.partition).await?;
            positions::create(connection, &self.name, range.earliest).await?;
            found = positions::read(connection, &self.name).await?;
        }
        let position = found.with_context(|| format!("the position of {} has vanished", self.name))?;
        self.position = Some(position);
        Ok(position)
    }

    fn is_careful(&self, offset: i64) -> bool {
        self.careful_until.is_some_and(|until| offset < until)
    }

    async fn handle_batch(
        &mut self,
        connection: &mut Connection,
        position: Position,
        mut items: Vec<Item>,
    ) -> anyhow::Result<Turn> {
        if !self.is_noted {
            self.note_try(connection, position.next_offset, 0).await?;
        }
        let spans = trace::spans(&items);
        let assessed = self.assess(connection, &items).await?;
        self.finish_commit().await?;
        let rest = items.split_off(assessed.handled.min(items.len()));
        let is_stuck = assessed.unhandled.is_some();
        if let Some(last) = items.last() {
            self.begin_commit(position, last.record.offset + 1, assessed, spans).await?;
        }
        if is_stuck {
            // Its own tries are counted from here on.
            if let (Some(position), Some(next)) = (&mut self.position, rest.first()) {
                self.careful_until = Some(next.record.offset + 1);
                position.interrupted = true;
            }
        }
        let handled = items.len();
        if let Some(reader) = &mut self.reader {
            reader.put_back(rest);
        }
        Ok(Turn::Handled(handled))
    }

    /// Tries the first of `items` by itself, unless it has had its tries.
    async fn handle_first_alone(
        &mut self,
        connection: &mut Connection,
        position: Position,
        items: Vec<Item>,
    ) -> anyhow::Result<Turn> {
        let mut items = VecDeque::from(items);
        let Some(mut item) = items.pop_front() else { return Ok(Turn::Idle) };
        if let Some(reader) = &mut self.reader {
            reader.put_back(items.into());
        }
        let attempts_max = self.context.config.consume_risk.attempts_max;
        let is_counted = self.open_try == Some(position.next_offset);
        let attempts = if is_counted { position.attempts } else { position.attempts.saturating_add(1) };
        if attempts > attempts_max {
            let died = Unhandled {
                stage: "process",
                reason: "process_ended",
                error: format!("the process ended during each of {} tries", position.attempts),
            };
            let unhandled = item.decoded.err().unwrap_or(died);
            item.decoded = Err(unhandled.clone());
            return self.put_aside(connection, position, &item, &unhandled, position.attempts).await;
        }
        let turn = Arc::clone(&self.turn);
        let _alone = if attempts > 1 { Some(turn.lock().await) } else { None };
        if !is_counted {
            self.note_try(connection, position.next_offset, attempts).await?;
            self.open_try = Some(position.next_offset);
        }
        item.decoded = decode(&item.record);
        let items = vec![item];
        let spans = trace::spans(&items);
        let assessed = self.assess(connection, &items).await?;
        let Some(unhandled) = &assessed.unhandled else {
            let handled = assessed.handled;
            if let (1, Some(item)) = (handled, items.first()) {
                self.begin_commit(position, item.record.offset + 1, assessed, spans).await?;
                let committed = self.finish_commit().await;
                if committed.is_err() {
                    // Trouble, not the record's fault: the same try goes on.
                    self.open_try = Some(position.next_offset);
                }
                committed?;
            } else if let Some(reader) = &mut self.reader {
                reader.put_back(items);
            }
            return Ok(Turn::Handled(handled));
        };
        self.open_try = None;
        if attempts >= attempts_max
            && let Some(item) = items.first()
        {
            return self.put_aside(connection, position, item, unhandled, attempts).await;
        }
        if let Some(reader) = &mut self.reader {
            reader.put_back(items);
        }
        Ok(Turn::TriedInVain)
    }

    async fn assess(&mut self, connection: &mut Connection, items: &[Item]) -> anyhow::Result<Assessed> {
        let ruleset = Arc::clone(&self.rules.borrow());
        let version = ruleset.version();
        if self.cached_for.as_ref() != Some(&version) {
            self.cache.clear();
            self.cached_for = Some(version);
        }
        Ok(assess(connection, &ruleset, &mut self.cache, items).await?)
    }

    async fn note_try(
        &mut self,
        connection: &mut Connection,
        offset: i64,
        attempts: i32,
    ) -> anyhow::Result<()> {
        let (lease, name) = (&self.lease, &self.name);
        transaction("note a try", connection, async |connection: &mut Connection| {
            leases::hold(connection, &[lease]).await?;
            positions::note_try(connection, name, offset, attempts).await
        })
        .await?;
        fail_point::reach("consume-risk/noted");
        self.is_noted = true;
        if let Some(position) = &mut self.position {
            position.attempts = attempts;
        }
        Ok(())
    }

    /// Results, announcements and position, together or not at all.
    async fn begin_commit(
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
        let (lease, name) = (self.lease.clone(), self.name.clone());
        let task = tokio::spawn(async move {
            let (lease, name, assessed) = (&lease, &name, &assessed);
            let (rows, ruleset, assessed_at) = (&assessed.rows, &*ruleset, assessed.assessed_at);
            let written = transaction("assess", &mut connection, async |connection: &mut Connection| {
                leases::hold(connection, &[lease]).await?;
                positions::advance(connection, name, from, to, interrupted).await?;
                let written = assessments::record(connection, rows, ruleset, assessed_at).await;
                fail_point::reach("consume-risk/writing");
                written
            })
            .await?;
            fail_point::reach("consume-risk/committed");
            count(assessed, written);
            drop(spans);
            Ok(connection)
        });
        self.commit = Some(Commit { to, task: AbortOnDropHandle::new(task) });
        self.moved_to(to, interrupted);
        Ok(())
    }

    /// Waits for the commit under way, if there is one. The position in memory has moved already; an error takes it
    /// back, because then everything in memory is forgotten.
    async fn finish_commit(&mut self) -> anyhow::Result<()> {
        if let Some(Commit { to, task }) = self.commit.take() {
            let connection = task.await.with_context(|| format!("the commit up to {to} was dropped"))??;
            self.commit_connection = Some(connection);
        }
        Ok(())
    }

    async fn put_aside(
        &mut self,
        connection: &mut Connection,
        position: Position,
        item: &Item,
        unhandled: &Unhandled,
        attempts: i32,
    ) -> anyhow::Result<Turn> {
        let letter = dead_letter(&self.name, &item.record, unhandled, attempts);
        let (from, to) = (position.next_offset, item.record.offset + 1);
        let interrupted = self.is_careful(to);
        let (lease, name) = (&self.lease, &self.name);
        transaction("put aside", connection, async |connection: &mut Connection| {
            leases::hold(connection, &[lease]).await?;
            positions::advance(connection, name, from, to, interrupted).await?;
            let put_aside = dead_letters::insert(connection, &letter).await;
            fail_point::reach("consume-risk/putting-aside");
            put_aside
        })
        .await?;
        fail_point::reach("consume-risk/put-aside");
        self.moved_to(to, interrupted);
        tracing::error!(partition = %self.name, offset = item.record.offset, stage = unhandled.stage,
            reason = unhandled.reason, error = letter.error, attempts, "put aside as a dead letter");
        metrics::counter!("ledger_dead_letters_total", "reason" => unhandled.reason).increment(1);
        metrics::counter!("ledger_consumer_events_total", "outcome" => "dead_lettered").increment(1);
        Ok(Turn::Handled(1))
    }

    fn moved_to(&mut self, next_offset: i64, interrupted: bool) {
        self.position = Some(Position { next_offset, attempts: 0, interrupted });
        self.open_try = None;
        if !interrupted {
            self.careful_until = None;
        }
    }

    fn forget(&mut self) {
        self.connection = None;
        self.commit_connection = None;
        self.commit = None;
        self.reader = None;
        self.position = None;
        self.cache.clear();
    }

    /// A try that the infrastructure ended is not held against the record by the next owner, unless that owner is there
    /// already. Best effort: without it one of the tries is missing.
    async fn give_back_open_try(&mut self) {
        let Some(offset) = self.open_try else { return };
        let (lease, name) = (&self.lease, &self.name);
        let given_back = async {
            let mut connection = self.connect().await?;
            transaction("give back a try", &mut connection, async |connection: &mut Connection| {
                leases::hold(connection, &[lease]).await?;
                match positions::read(connection, name).await? {
                    Some(Position { next_offset, attempts, .. }) if next_offset == offset && attempts > 0 => {
                        positions::note_try(connection, name, offset, attempts - 1).await
                    }
                    _ => Ok(()),
                }
            })
            .await?;
            anyhow::Ok(())
        };
        if let Err(error) = given_back.await {
            tracing::debug!(partition = %self.name, "a try could not be given back: {error:#}");
        }
    }

    fn labels(&self) -> [(&'static str, String); 3] {
        [
            ("group", self.name.group.clone()),
            ("topic", self.name.topic.clone()),
            ("partition", self.name.partition.to_string()),
        ]
    }

    fn show_lag(&self, records: i64) {
        let records = u32::try_from(records.max(0)).unwrap_or(u32::MAX);
        metrics::gauge!("ledger_consumer_lag_records", &self.labels()).set(records);
    }

    fn halted(&self, is_halted: bool) {
        let alarm = if is_halted { 1.0 } else { 0.0 };
        metrics::gauge!("ledger_consumer_halted", &self.labels()).set(alarm);
    }
}

fn count(assessed: &Assessed, written: usize) {
    let written = u64::try_from(written).unwrap_or_default();
    let expected = u64::try_from(assessed.rows.len()).unwrap_or_default();
    let duplicates = assessed.duplicates + expected.saturating_sub(written);
    metrics::counter!("ledger_consumer_events_total", "outcome" => "assessed").increment(written);
    metrics::counter!("ledger_consumer_events_total", "outcome" => "duplicate").increment(duplicates);
    for (level, count) in &assessed.levels {
        metrics::counter!("ledger_risk_assessments_total", "level" => *level).increment(*count);
    }
}

/// Keeps the broker's error and says what to do about one that halts the partition.
fn halt_text(error: BrokerError, name: &PartitionName) -> anyhow::Error {
    let halts = matches!(error, BrokerError::OffsetOutOfRange { .. });
    let error = anyhow::Error::new(error);
    if halts {
        let PartitionName { group, topic, partition } = name;
        error.context(format!(
            "the partition is halted, nothing is skipped: records were lost to retention or the topic was made anew; \
             `ledger consumers reset --group {group} --topic {topic} --partition {partition} --to earliest` goes on \
             from what is there"
        ))
    } else {
        error
    }
}

async fn pause(wait: Duration, stop: &Stop) {
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = stop.requested() => {}
    }
}
