//! One batch on its way: read, sorted into partitions, published, removed.
//!
//! Each partition gets one request at a time. One that takes long does not hold up the batch: it goes on by itself,
//! left alone until its rows are removed. What was acknowledged is removed and nothing else; removing is tried until it
//! succeeds or a lease turns out to be lost, for rows that stay are published again.

mod removal;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use self::removal::Removal;
use super::{
    floors::{Floors, Settled},
    lanes::lane_of_lease,
    partitions::{LeftAlone, Partition, PartitionCounts, partition_number, sort},
    past::Past,
    request::{Outcome, publish},
    sessions::{Session, Sessions},
};
use crate::{
    broker::{BrokerError, SharedBroker},
    config::Config,
    event::LANES,
    repository::{
        RepositoryError,
        outbox::{self, OutboxAddress, OutboxRow, OutboxRowId, RejectedRow},
    },
    runtime::{Lease, fail_point},
};

/// How long a batch waits for its slowest partition before it goes on without it.
const PATIENCE: Duration = Duration::from_millis(500);
/// Values of one look, over all lanes.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Rows of one look that are looked through for some that can be published while others cannot.
const LOOK_PAST_MAX: usize = 50_000;
const DATABASE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why there is no batch.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The database did not answer as it should.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The broker did not say how many partitions there are, or refuses for good.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The database did not answer at all.
    #[error("no answer from the database within {DATABASE_TIMEOUT:?}")]
    Silent,
}

/// Rows to be delivered together.
#[derive(Debug)]
pub struct Batch {
    partitions: BTreeMap<Partition, Vec<OutboxRow>>,
    is_full: bool,
    looks_on: bool,
    settled: Settled,
}

impl Batch {
    /// Whether there is nothing to be delivered.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Whether rows were passed that have to stay, and the next look begins behind them.
    pub(super) fn looks_on(&self) -> bool {
        self.looks_on
    }

    /// Whether there is probably more where this came from.
    pub fn is_full(&self) -> bool {
        self.is_full
    }
}

/// What became of a batch, as far as its delivery did not have to wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Rows acknowledged by the broker.
    pub published: usize,
    /// Rows kept as dead letters.
    pub parked: usize,
}

/// The part of the role that moves rows.
pub struct Relay {
    broker: SharedBroker,
    sessions: Sessions,
    batch_size_max: i64,
    row_bytes: AtomicUsize,
    floors: Floors,
    left_alone: LeftAlone,
    past: Mutex<Past>,
    slow: Mutex<JoinSet<()>>,
    refusal: Mutex<Option<BrokerError>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// Opens no connection yet.
    pub fn new(config: &Config, broker: SharedBroker) -> Self {
        Self {
            broker,
            sessions: Sessions::new(config.database.clone()),
            batch_size_max: i64::try_from(config.relay.batch_size_max).unwrap_or(i64::MAX),
            row_bytes: AtomicUsize::default(),
            floors: Floors::default(),
            left_alone: LeftAlone::default(),
            past: Mutex::default(),
            slow: Mutex::default(),
            refusal: Mutex::default(),
        }
    }

    /// One bounded batch of the lanes that these leases are for.
    pub async fn run_once(self: &Arc<Self>, leases: &[Lease]) -> Result<Delivered, RelayError> {
        let batch = self.read(leases).await?;
        let delivered = self.deliver(batch, leases).await;
        match self.refusal() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(delivered),
        }
    }

    /// What the broker refused for good, if it did; no retry helps.
    pub fn refusal(&self) -> Option<BrokerError> {
        locked(&self.refusal).take()
    }

    /// Ends what is still under way; its rows stay and are published again by whoever holds their lanes then.
    pub(super) async fn abandon(&self) {
        let mut slow = std::mem::take(&mut *locked(&self.slow));
        slow.shutdown().await;
    }

    /// The first rows of the lanes that can be published now.
    pub async fn read(&self, leases: &[Lease]) -> Result<Batch, RelayError> {
        let lanes: Vec<i16> = leases.iter().filter_map(lane_of_lease).collect();
        let reading = async {
            match self.left_alone.is_any() {
                false => self.read_first(&lanes).await,
                true => self.read_past(&lanes).await,
            }
        };
        timeout(DATABASE_TIMEOUT, reading).await.unwrap_or(Err(RelayError::Silent))
    }

    async fn session(&self) -> Result<Session, RepositoryError> {
        let (session, is_new) = self.sessions.take().await?;
        if is_new {
            self.floors.forget();
        }
        Ok(session)
    }

    /// Where looks at all lanes may begin.
    pub(super) fn floors(&self) -> Vec<i64> {
        let lanes: Vec<i16> = (0..LANES).collect();
        self.floors.begin(&lanes).floors
    }

    async fn read_first(&self, lanes: &[i16]) -> Result<Batch, RelayError> {
        let rows_max =
            i64::try_from(BATCH_BYTES_MAX / self.row_bytes.load(Relaxed).max(1)).unwrap_or(i64::MAX);
        let lane_count = lanes.len().max(1);
        let per_lane = self.batch_size_max.min(rows_max) / i64::try_from(lane_count).unwrap_or(1);
        let bytes_per_lane = BATCH_BYTES_MAX / lane_count;
        let mut session = self.session().await?;
        if self.floors.are_due() {
            let begin = self.floors.begin(lanes);
            self.floors.settle(&begin, outbox::drawn_ids(&mut session.connection).await?);
        }
        let begin = self.floors.begin(lanes);
        let (floors, rows_max) = (&begin.floors, self.batch_size_max);
        let connection = &mut session.connection;
        let look = outbox::scan(connection, lanes, floors, per_lane.max(1), bytes_per_lane, rows_max).await?;
        self.sessions.give_back(session);
        self.floors.raise(lanes, &begin, &look);
        let settled = begin.settled(&look);
        self.note_row_bytes(&look.rows);
        let counts = self.partition_counts(look.rows.iter().map(|row| &row.topic)).await?;
        Ok(Batch { partitions: sort(look.rows, &counts), is_full: look.is_full, looks_on: false, settled })
    }

    /// The mean of the last look decides how many rows the next one asks for.
    fn note_row_bytes(&self, rows: &[OutboxRow]) {
        let bytes: usize = rows.iter().map(OutboxRow::bytes).sum();
        self.row_bytes.store(bytes / rows.len().max(1), Relaxed);
    }

    /// Some partitions are to be left alone: looks past their rows, so many at once, and next time on from there.
    async fn read_past(&self, lanes: &[i16]) -> Result<Batch, RelayError> {
        let per_lane = LOOK_PAST_MAX / lanes.len().max(1);
        let mut session = self.session().await?;
        // One answer for the whole look: a pause that ended in the middle would let a row overtake one of its own key.
        let left_alone = self.left_alone.all();
        let starts = locked(&self.past).starts(&left_alone, lanes, &self.floors.begin(lanes).floors);
        let connection = &mut session.connection;
        let limit = i64::try_from(per_lane).unwrap_or(i64::MAX);
        let mut addresses = outbox::scan_addresses(connection, lanes, &starts, limit).await?;
        let counts = self.partition_counts(addresses.iter().map(|address| &address.topic)).await?;
        let is_left_alone =
            |address: &OutboxAddress| left_alone.contains(&partition_of_address(address, &counts));
        let looks_on = locked(&self.past).looked(&left_alone, &addresses, per_lane, is_left_alone);
        addresses.retain(|address| !is_left_alone(address));
        addresses.truncate(usize::try_from(self.batch_size_max).unwrap_or(usize::MAX));
        let rows = match addresses.is_empty() {
            true => Vec::new(),
            false => outbox::read_rows(connection, &addresses, BATCH_BYTES_MAX).await?,
        };
        self.sessions.give_back(session);
        Ok(Batch { partitions: sort(rows, &counts), is_full: false, looks_on, settled: Settled::default() })
    }

    async fn partition_counts<'a>(
        &self,
        topics: impl Iterator<Item = &'a String>,
    ) -> Result<PartitionCounts, BrokerError> {
        let topics: BTreeSet<&String> = topics.collect();
        let mut counts = PartitionCounts::new();
        for topic in topics {
            counts.insert(topic.clone(), self.broker.partitions(topic).await?);
        }
        Ok(counts)
    }

    /// Publishes all partitions of the batch at once and removes what was acknowledged.
    pub async fn deliver(self: &Arc<Self>, batch: Batch, leases: &[Lease]) -> Delivered {
        fail_point::reach("relay/read");
        let mut waiting: BTreeSet<Partition> = batch.partitions.keys().cloned().collect();
        let mut requests = JoinSet::new();
        for (partition, rows) in batch.partitions {
            let broker = Arc::clone(&self.broker);
            let invalid_in_a_row = self.left_alone.invalid_in_a_row(&partition);
            requests.spawn(async move { publish(&*broker, partition, rows, invalid_in_a_row).await });
        }
        let outcomes = collect(&mut requests, &mut waiting, Some(Instant::now() + PATIENCE)).await;
        if !requests.is_empty() {
            self.go_on_without(requests, waiting, leases.to_vec());
        }
        let delivered = self.remove_settled(&outcomes, leases, batch.settled).await;
        self.judge(outcomes);
        delivered
    }

    fn go_on_without(
        self: &Arc<Self>,
        mut requests: JoinSet<Outcome>,
        mut waiting: BTreeSet<Partition>,
        leases: Vec<Lease>,
    ) {
        let slow_ones = waiting.clone();
        for partition in &slow_ones {
            self.left_alone.slow(partition);
        }
        let relay = Arc::clone(self);
        let mut slow = locked(&self.slow);
        while slow.try_join_next().is_some() {}
        slow.spawn(async move {
            let outcomes = collect(&mut requests, &mut waiting, None).await;
            relay.remove_settled(&outcomes, &leases, Settled::default()).await;
            for partition in &slow_ones {
                relay.left_alone.no_longer_slow(partition);
            }
            relay.judge(outcomes);
            for partition in waiting {
                relay.left_alone.failed(&partition, &"the request ended without an outcome");
            }
        });
    }

    /// Removes what was acknowledged.
    async fn remove_settled(&self, outcomes: &[Outcome], leases: &[Lease], settled: Settled) -> Delivered {
        let published: Vec<OutboxRowId> =
            outcomes.iter().flat_map(|outcome| outcome.published.iter().copied()).collect();
        let parked: Vec<RejectedRow> =
            outcomes.iter().flat_map(|outcome| outcome.parked.iter().cloned()).collect();
        let delivered = Delivered { published: published.len(), parked: parked.len() };
        if !published.is_empty() || !parked.is_empty() {
            fail_point::reach("relay/published");
            self.remove(Removal { published, parked, settled }, leases).await;
            fail_point::reach("relay/removed");
        }
        delivered
    }

    /// Lets each partition go on, pause, or stop the role; only after its rows were removed.
    fn judge(&self, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            self.left_alone.note_invalid_in_a_row(&outcome.partition, outcome.invalid_in_a_row);
            match outcome.error {
                None => self.left_alone.works(&outcome.partition),
                Some(error) => {
                    self.left_alone.failed(&outcome.partition, &error);
                    if !error.is_transient() {
                        locked(&self.refusal).get_or_insert(error);
                    }
                }
            }
        }
    }
}

/// Outcomes in the order in which they come, until the deadline if there is one.
async fn collect(
    requests: &mut JoinSet<Outcome>,
    waiting: &mut BTreeSet<Partition>,
    deadline: Option<Instant>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    loop {
        let next = match deadline {
            Some(deadline) => timeout_at(deadline, requests.join_next()).await.unwrap_or(None),
            None => requests.join_next().await,
        };
        match next {
            None => return outcomes,
            Some(Ok(outcome)) => {
                waiting.remove(&outcome.partition);
                outcomes.push(outcome);
            }
            Some(Err(error)) => tracing::error!(%error, "a request to the broker ended by a bug"),
        }
    }
}

fn partition_of_address(address: &OutboxAddress, counts: &PartitionCounts) -> Partition {
    let count = counts.get(&address.topic).copied().unwrap_or(1);
    let number = partition_number(address.key.as_deref(), address.lane, count);
    Partition { topic: address.topic.clone(), number }
}
