//! Moves one batch: reads rows, sorts them into partitions, publishes them, and removes them.
//!
//! - Each partition has one request in flight.
//! - A slow request does not delay the batch: it continues in the background, and its partition is paused until its rows
//!   are removed.
//! - Only acknowledged rows are removed. Removal is retried until it succeeds or a lease is lost, because rows that stay
//!   are published again.

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
    connections::{Connections, RelayConnection},
    floors::SettledLanes,
    lanes::lane_of_lease,
    partitions::{Partition, PartitionCounts, PausedPartitions, partition_number, sort},
    request::{Outcome, publish},
    resume_points::ResumePoints,
    scan_floors::ScanFloors,
};
use crate::{
    broker::{BrokerError, SharedBroker},
    repository::{
        RepositoryError,
        outbox::{self, OutboxAddress, OutboxRow, OutboxRowId, RejectedRow},
    },
    runtime::{Context, DatabaseClock, Lease, Outages, fail_point},
};

/// A request that takes longer continues in the background, and the batch continues without it.
const SLOW_AFTER: Duration = Duration::from_millis(500);
/// The size of the values of one scan, over all lanes.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// The most rows that one scan reads to find rows of partitions that are not paused.
const ROWS_SKIPPED_MAX: usize = 50_000;
const DATABASE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why there is no batch.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The database failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The broker failed, or refuses for good.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The database did not answer in time.
    #[error("no answer from the database within {DATABASE_TIMEOUT:?}")]
    NoAnswer,
}

/// Rows to deliver together.
#[derive(Debug)]
pub struct Batch {
    partitions: BTreeMap<Partition, Vec<OutboxRow>>,
    is_full: bool,
    resumes: bool,
    settled: SettledLanes,
}

impl Batch {
    /// Returns whether there is no row to deliver.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Returns whether rows of paused partitions were skipped. The next scan then resumes after them at once.
    pub(super) fn resumes(&self) -> bool {
        self.resumes
    }

    /// Returns whether the outbox probably holds more rows of these lanes.
    pub fn is_full(&self) -> bool {
        self.is_full
    }
}

/// The result of a batch, without its slow requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Rows acknowledged by the broker.
    pub published: usize,
    /// Rows stored as dead letters.
    pub dead_lettered: usize,
}

/// The part of the role that moves rows.
pub struct Relay {
    broker: SharedBroker,
    clock: DatabaseClock,
    connections: Connections,
    batch_size_max: i64,
    row_bytes: AtomicUsize,
    floors: ScanFloors,
    paused: PausedPartitions,
    outages: Outages,
    resume_points: Mutex<ResumePoints>,
    slow: Mutex<JoinSet<()>>,
    refusal: Mutex<Option<BrokerError>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// Creates a relay without opening a connection.
    pub fn new(context: &Context, broker: SharedBroker) -> Self {
        let config = &context.config;
        Self {
            broker,
            clock: context.clock.clone(),
            connections: Connections::new(config.database.clone()),
            batch_size_max: i64::try_from(config.relay.batch_size_max).unwrap_or(i64::MAX),
            row_bytes: AtomicUsize::default(),
            floors: ScanFloors::default(),
            paused: PausedPartitions::new(&context.outages),
            outages: context.outages.clone(),
            resume_points: Mutex::default(),
            slow: Mutex::default(),
            refusal: Mutex::default(),
        }
    }

    /// Moves one bounded batch of the lanes of these leases.
    pub async fn run_once(self: &Arc<Self>, leases: &[Lease]) -> Result<Delivered, RelayError> {
        let batch = self.read(leases).await?;
        let delivered = self.deliver(batch, leases).await;
        match self.refusal() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(delivered),
        }
    }

    /// Returns the broker's refusal, if a request was refused for good. A retry does not help.
    pub fn refusal(&self) -> Option<BrokerError> {
        locked(&self.refusal).take()
    }

    /// Stops the requests in flight. Their rows stay, and the next owner of their lanes publishes them again.
    pub(super) async fn abandon(&self) {
        let mut slow = std::mem::take(&mut *locked(&self.slow));
        slow.shutdown().await;
    }

    /// Reads the first rows of the lanes that can be published now.
    pub async fn read(&self, leases: &[Lease]) -> Result<Batch, RelayError> {
        let lanes: Vec<i16> = leases.iter().filter_map(lane_of_lease).collect();
        let reading = async {
            match self.paused.is_any() {
                false => self.read_first(&lanes).await,
                true => self.read_past_paused(&lanes).await,
            }
        };
        timeout(DATABASE_TIMEOUT, reading).await.unwrap_or(Err(RelayError::NoAnswer))
    }

    async fn session(&self) -> Result<RelayConnection, RepositoryError> {
        let (session, is_new) = self.connections.take().await?;
        if is_new {
            self.floors.discard();
        }
        Ok(session)
    }

    /// Returns whether publishing to any partition fails.
    pub(super) fn is_publishing_failing(&self) -> bool {
        self.paused.is_any_failing()
    }

    /// Returns the scan floors of the lanes.
    pub(super) fn floors(&self) -> &ScanFloors {
        &self.floors
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
        let scan = outbox::scan(connection, lanes, floors, per_lane.max(1), bytes_per_lane, rows_max).await?;
        self.connections.give_back(session);
        self.floors.raise(lanes, &begin, &scan);
        let settled = begin.settled(&scan);
        self.record_row_bytes(&scan.rows);
        let counts = self.partition_counts(scan.rows.iter().map(|row| &row.topic)).await?;
        Ok(Batch { partitions: sort(scan.rows, &counts), is_full: scan.is_full, resumes: false, settled })
    }

    /// Records the mean size of a row. It decides how many rows the next scan asks for.
    fn record_row_bytes(&self, rows: &[OutboxRow]) {
        let bytes: usize = rows.iter().map(OutboxRow::bytes).sum();
        self.row_bytes.store(bytes / rows.len().max(1), Relaxed);
    }

    /// Reads rows while partitions are paused: skips at most [`ROWS_SKIPPED_MAX`] of their rows, and resumes there next
    /// time.
    async fn read_past_paused(&self, lanes: &[i16]) -> Result<Batch, RelayError> {
        let per_lane = ROWS_SKIPPED_MAX / lanes.len().max(1);
        let mut session = self.session().await?;
        // One answer for the whole scan: if a pause ended during it, a row could overtake another of its key.
        let paused = self.paused.all();
        let starts = locked(&self.resume_points).starts(&paused, lanes, &self.floors.begin(lanes).floors);
        let connection = &mut session.connection;
        let limit = i64::try_from(per_lane).unwrap_or(i64::MAX);
        let mut addresses = outbox::scan_addresses(connection, lanes, &starts, limit).await?;
        let counts = self.partition_counts(addresses.iter().map(|address| &address.topic)).await?;
        let is_paused = |address: &OutboxAddress| paused.contains(&partition_of_address(address, &counts));
        let resumes = locked(&self.resume_points).record_scan(&paused, &addresses, per_lane, is_paused);
        addresses.retain(|address| !is_paused(address));
        addresses.truncate(usize::try_from(self.batch_size_max).unwrap_or(usize::MAX));
        let rows = match addresses.is_empty() {
            true => Vec::new(),
            false => outbox::read_rows(connection, &addresses, BATCH_BYTES_MAX).await?,
        };
        self.connections.give_back(session);
        Ok(Batch {
            partitions: sort(rows, &counts),
            is_full: false,
            resumes,
            settled: SettledLanes::default(),
        })
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

    /// Publishes all partitions of the batch in parallel and removes the acknowledged rows.
    pub async fn deliver(self: &Arc<Self>, batch: Batch, leases: &[Lease]) -> Delivered {
        fail_point::reach("relay/read");
        let mut waiting: BTreeSet<Partition> = batch.partitions.keys().cloned().collect();
        let mut requests = JoinSet::new();
        for (partition, rows) in batch.partitions {
            let broker = Arc::clone(&self.broker);
            let clock = self.clock.clone();
            let invalid_in_a_row = self.paused.invalid_in_a_row(&partition);
            requests.spawn(async move { publish(&*broker, &clock, partition, rows, invalid_in_a_row).await });
        }
        let outcomes = collect(&mut requests, &mut waiting, Some(Instant::now() + SLOW_AFTER)).await;
        if !requests.is_empty() {
            self.finish_in_background(requests, waiting, leases.to_vec());
        }
        let delivered = self.remove_settled(&outcomes, leases, batch.settled).await;
        self.apply_outcomes(outcomes);
        delivered
    }

    fn finish_in_background(
        self: &Arc<Self>,
        mut requests: JoinSet<Outcome>,
        mut waiting: BTreeSet<Partition>,
        leases: Vec<Lease>,
    ) {
        let slow_ones = waiting.clone();
        for partition in &slow_ones {
            self.paused.mark_slow(partition);
        }
        let relay = Arc::clone(self);
        let mut slow = locked(&self.slow);
        while slow.try_join_next().is_some() {}
        slow.spawn(async move {
            let outcomes = collect(&mut requests, &mut waiting, None).await;
            relay.remove_settled(&outcomes, &leases, SettledLanes::default()).await;
            for partition in &slow_ones {
                relay.paused.clear_slow(partition);
            }
            relay.apply_outcomes(outcomes);
            for partition in waiting {
                relay.paused.failed(&partition, &"the request ended without a result");
            }
        });
    }

    /// Removes the acknowledged rows.
    async fn remove_settled(
        &self,
        outcomes: &[Outcome],
        leases: &[Lease],
        settled: SettledLanes,
    ) -> Delivered {
        let published: Vec<OutboxRowId> =
            outcomes.iter().flat_map(|outcome| outcome.published.iter().copied()).collect();
        let dead_lettered: Vec<RejectedRow> =
            outcomes.iter().flat_map(|outcome| outcome.dead_lettered.iter().cloned()).collect();
        let delivered = Delivered { published: published.len(), dead_lettered: dead_lettered.len() };
        if !published.is_empty() || !dead_lettered.is_empty() {
            fail_point::reach("relay/published");
            self.remove(Removal { published, dead_lettered, settled }, leases).await;
            fail_point::reach("relay/removed");
        }
        delivered
    }

    /// Continues or pauses each partition, or stops the role. Call it only after the rows were removed.
    fn apply_outcomes(&self, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            self.paused.record_invalid_in_a_row(&outcome.partition, outcome.invalid_in_a_row);
            match outcome.error {
                None => self.paused.succeeded(&outcome.partition),
                Some(error) => {
                    self.paused.failed(&outcome.partition, &error);
                    if !error.is_transient() {
                        locked(&self.refusal).get_or_insert(error);
                    }
                }
            }
        }
    }
}

/// Collects outcomes as they arrive, until the deadline if there is one.
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
            Some(Err(error)) => tracing::error!(%error, "a request to the broker panicked"),
        }
    }
}

fn partition_of_address(address: &OutboxAddress, counts: &PartitionCounts) -> Partition {
    let count = counts.get(&address.topic).copied().unwrap_or(1);
    let number = partition_number(address.key.as_deref(), address.lane, count);
    Partition { topic: address.topic.clone(), number }
}
