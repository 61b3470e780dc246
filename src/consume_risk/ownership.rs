//! One task for each partition whose lease is held: it starts when the lease is won and stops when it is lost.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    answer_timeout::{answer_timeout, answered_within},
    isolation::ScoringIsolation,
    memory_budget::MemoryBudget,
    partition::PartitionConsumer,
    shared_connections::SharedConnections,
};
use crate::{
    broker::SharedBroker,
    event::TRANSACTIONS_TOPIC,
    repository::{positions, positions::PartitionName},
    risk::Ruleset,
    runtime::{Context, Lease, LeaseGroup, Stop},
};

/// How often tasks that ended by themselves are replaced.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
const MIRROR_INTERVAL: Duration = Duration::from_secs(5);
/// How often positions are copied that have not changed. Kafka forgets them after a week, or when someone deletes the group.
const MIRROR_ALL_INTERVAL: Duration = Duration::from_secs(60);
/// How long the tasks have to finish at a stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

struct PartitionTask {
    epoch: i64,
    stop: Stop,
    task: JoinHandle<()>,
}

/// Starts and stops the partition tasks.
pub(super) struct Ownership {
    pub context: Context,
    pub broker: SharedBroker,
    pub rules: watch::Receiver<Arc<Ruleset>>,
    memory: Arc<MemoryBudget>,
    owned: BTreeMap<i32, PartitionTask>,
    isolation: ScoringIsolation,
    connections: Arc<SharedConnections>,
}

/// Returns the name of a partition's lease.
pub(super) fn lease_name(group: &str, partition: i32) -> String {
    PartitionName { group: group.to_owned(), topic: TRANSACTIONS_TOPIC.to_owned(), partition }.lease_name()
}

impl Ownership {
    pub fn new(context: Context, broker: SharedBroker, rules: watch::Receiver<Arc<Ruleset>>) -> Self {
        let memory = Arc::new(MemoryBudget::new(context.config.risk.history_bytes_max()));
        let connections = SharedConnections::new(&context.config.database, &context.outages);
        Self {
            context,
            broker,
            rules,
            memory,
            owned: BTreeMap::new(),
            isolation: ScoringIsolation::default(),
            connections,
        }
    }

    /// Runs until it is asked to stop.
    pub async fn run(mut self, mut leases: LeaseGroup) {
        let mirror =
            tokio::spawn(mirror(self.context.clone(), self.broker.clone(), Arc::clone(&self.connections)));
        while !self.context.stop.is_requested() {
            self.adjust(leases.held());
            tokio::select! {
                () = leases.changed() => {}
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
                () = self.context.stop.requested() => {}
            }
        }
        mirror.abort();
        self.stop_all().await;
        leases.leave().await;
    }

    fn adjust(&mut self, held: Vec<Lease>) {
        let group = self.context.config.consume_risk.group.clone();
        let mut wanted: BTreeMap<i32, Lease> = held
            .into_iter()
            .filter_map(|lease| Some((lease.name.rsplit('/').next()?.parse().ok()?, lease)))
            .collect();
        self.owned.retain(|partition, owned| {
            if owned.task.is_finished() {
                return false;
            }
            match wanted.get(partition) {
                Some(lease) if lease.epoch == owned.epoch => {
                    wanted.remove(partition);
                }
                // Keep the old task until it has ended, so that a partition never has two tasks in this process.
                Some(_) => {
                    owned.stop.request();
                    wanted.remove(partition);
                }
                None => owned.stop.request(),
            }
            true
        });
        for (partition, lease) in wanted {
            let name =
                PartitionName { group: group.clone(), topic: TRANSACTIONS_TOPIC.to_owned(), partition };
            let (epoch, stop) = (lease.epoch, self.context.stop.child());
            let consumer = PartitionConsumer::new(
                self.context.clone(),
                self.broker.clone(),
                self.rules.clone(),
                name,
                lease,
            )
            .sharing(
                Arc::clone(&self.memory),
                self.isolation.clone(),
                Arc::clone(&self.connections),
            );
            let task = tokio::spawn(consumer.run(stop.clone()));
            self.owned.insert(partition, PartitionTask { epoch, stop, task });
        }
    }

    async fn stop_all(&mut self) {
        let owned = std::mem::take(&mut self.owned);
        owned.values().for_each(|owned| owned.stop.request());
        let deadline = Instant::now() + STOP_GRACE;
        for (_, mut owned) in owned {
            if tokio::time::timeout_at(deadline, &mut owned.task).await.is_err() {
                owned.task.abort();
            }
        }
    }
}

/// Copies the group's positions to the broker, for Kafka's own tools. Every member copies all positions of the database
/// that have changed since its last copy, and once a minute all of them.
async fn mirror(context: Context, broker: SharedBroker, connections: Arc<SharedConnections>) {
    let group = &context.config.consume_risk.group;
    let answer_timeout = answer_timeout(&context.config.database);
    let mut copied = BTreeMap::new();
    let mut forgotten_at = Instant::now();
    while !context.stop.is_requested() {
        tokio::time::sleep(MIRROR_INTERVAL).await;
        if forgotten_at.elapsed() >= MIRROR_ALL_INTERVAL {
            copied.clear();
            forgotten_at = Instant::now();
        }
        let mirrored = async {
            let mut lent = connections.take().await?;
            let listing = positions::list(lent.connection(), Some(group));
            let rows = answered_within(answer_timeout, listing).await?;
            lent.give_back();
            let rows = rows.iter().filter(|row| row.topic == TRANSACTIONS_TOPIC);
            let changed: Vec<(i32, i64)> = rows
                .map(|row| (row.partition, row.next_offset))
                .filter(|(partition, offset)| copied.get(partition) != Some(offset))
                .collect();
            broker.mirror_positions(group, TRANSACTIONS_TOPIC, &changed).await?;
            copied.extend(changed);
            anyhow::Ok(())
        };
        if let Err(error) = mirrored.await {
            tracing::debug!("cannot mirror the positions: {error:#}");
        }
    }
}
