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
//! fails is thrown away with it. Guarantees: results, their announcement and the position commit together, under the
//! lease's fence; the position never passes a record that has neither a result nor a dead letter; trouble of the
//! infrastructure is waited out for ever, and a database that says nothing counts as a lost one. The first batch of a
//! new owner is noted before it is tried: if it ends the process, the owner after that finds the note and tries the
//! records one by one, so that only the fatal one is put aside. A record whose try was ended before is tried while no
//! other of the process is scored: of one that ends the process meanwhile it would get the blame.

mod commit;
mod idle;
mod place;
mod signs;
mod tries;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{RwLock, watch};

use self::{commit::Commit, signs::halt_text};
use super::{
    assess::{self, Ask, Assessed},
    cache::HistoryCache,
    memory::Memory,
    patience::{answered, patience},
    reader::{Item, Reader, Source},
    trace,
};
use crate::{
    broker::{BrokerError, SharedBroker},
    repository::{
        self, Connection, RepositoryError,
        positions::{PartitionName, Position},
    },
    risk::Ruleset,
    runtime::{Backoff, Context, Lease, OutageLog, Stop},
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
    /// When an idle partition last looked whether the database is still as it remembers it.
    looked_at: Instant,
    /// Shared by the partitions of the process: held alone during the try of a record that may end it, and with others
    /// while any is scored.
    turn: Arc<RwLock<()>>,
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
            looked_at: Instant::now(),
            turn: Arc::default(),
        }
    }

    /// Lets it try suspicious records only while no other partition with this `turn` scores any.
    pub fn taking_turns(self, turn: Arc<RwLock<()>>) -> Self {
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
        let mut outage = OutageLog::new(format!("consuming {}", self.name));
        while !stop.is_requested() {
            let turn = tokio::select! {
                turn = self.run_once() => turn,
                () = stop.requested() => break,
            };
            match turn {
                Ok(turn) => {
                    outage.succeeded();
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
                    outage.failed(&format!("{error:#}"));
                    let broker = error.downcast_ref::<BrokerError>();
                    signs::count_error(broker, &self.name);
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
        answered(self.patience(), repository::prepare_writer(&mut connection)).await?;
        Ok(connection)
    }

    fn patience(&self) -> Duration {
        patience(&self.context.config.database)
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
            self.look_again(connection, position).await?;
            let position = self.pass_marks(connection, position).await?;
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
        let turn = Arc::clone(&self.turn);
        let assessed = self.assess(connection, &items, Ask::Rows, Some(&turn)).await?;
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

    /// The turn is held while records are scored, but not while anything is read: a database that makes one partition
    /// wait makes no other wait with it. No `turn`: nobody else scores now.
    async fn assess(
        &mut self,
        connection: &mut Connection,
        items: &[Item],
        ask: Ask,
        turn: Option<&RwLock<()>>,
    ) -> anyhow::Result<Assessed> {
        let ruleset = Arc::clone(&self.rules.borrow());
        let version = ruleset.version();
        if self.cached_for.as_ref() != Some(&version) {
            self.cache.clear();
            self.cached_for = Some(version);
        }
        let patience = self.patience();
        let reading = assess::read(connection, &ruleset, &mut self.cache, items, ask);
        let plan = answered(patience, reading).await?;
        let _turn = match turn {
            Some(turn) => Some(turn.read().await),
            None => None,
        };
        let assessed = assess::score(&ruleset, &mut self.cache, plan).await?;
        // A turn that moves nothing would be made again at once, for ever.
        let moves = assessed.handled > 0 || assessed.unhandled.is_some();
        anyhow::ensure!(moves, "{} records gave neither a result nor a reason", items.len());
        Ok(assessed)
    }

    fn forget(&mut self) {
        self.connection = None;
        self.commit_connection = None;
        self.commit = None;
        self.reader = None;
        self.position = None;
        self.cache.clear();
    }
}

async fn pause(wait: Duration, stop: &Stop) {
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = stop.requested() => {}
    }
}
