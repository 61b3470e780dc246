//! `ledger relay`: publishes the outbox to the configured broker, in order per account.
//!
//! ```text
//!            lanes held by lease                     one request in flight per partition
//! outbox ──▶ scan: one query, rows ──▶ sort into ──▶ produce, wait until durable ──▶ remove exactly the
//!    ▲       still present, in order   partitions       (all partitions in parallel) acknowledged rows,
//!    └─────── while one share of the lanes is published, the next is read ◀───────── holding the leases
//! ```
//!
//! Guarantees:
//!
//! - A row leaves the outbox only after the broker has stored its record, so no event is lost.
//! - The first occurrences of a key's events are published in the order of its rows, also across crashes.
//! - A relay that lost a lease removes nothing from that lane.
//! - A partition that fails delays only its own keys.
//!
//! After a crash, events may be published twice; consumers drop duplicates by event id. A record that is too large for
//! the broker becomes a dead letter.
//!
//! Deliberately absent:
//!
//! - A cursor: it would skip a row that commits late with a lower id. A scan starts at the scan floor, below which no
//!   row can appear (see [`floors`]).
//! - Notifications (`NOTIFY`): they serialise commits.
//! - An order between different keys.

mod backlog;
mod connections;
mod delivery;
mod floor_check;
mod floors;
mod lanes;
mod partitions;
mod request;
mod resume_points;
mod retention;
mod scan_floors;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

pub use delivery::{Batch, Delivered, Relay, RelayError};
pub use floors::{Assumptions, Floors, ScanStart, SettledLanes};
pub use lanes::lease_name;

use self::lanes::{LaneSchedule, Share};
use crate::{
    broker::{TopicSpec, topic_specs},
    event::{DEAD_LETTER_REASONS, RELAY_REASONS},
    runtime::{Backoff, Boot, BrokerWatch, Context, HealthPart, LeaseGroup, StartDetails, start_at_zero},
};

/// How long requests in flight may take to finish after a stop. The rest of the 5 s is for releasing the leases.
const STOP_GRACE: Duration = Duration::from_millis(2500);
const RETRY_INTERVAL_MIN: Duration = Duration::from_millis(100);
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// Batches in flight in parallel: while one is read, others are published and removed.
const BATCHES_MAX: usize = 3;

/// Runs the role until it is asked to stop.
pub async fn run(context: Context) -> anyhow::Result<()> {
    let mut boot = Boot::new(&context, "relay");
    drop(boot.connect_to_write().await?);
    let topics = topic_specs(&context.config);
    let (broker, record) = boot.broker_with_topics(&topics).await?;
    let generation = boot.broker_generation();
    let pool = boot.pool()?;
    let admin = boot.started(StartDetails::default())?;
    let (context, broker_watch) = BrokerWatch::start(&context, Arc::clone(&broker), record);
    let forgetting = tokio::spawn(retention::watch(context.clone(), Arc::clone(&broker)));
    let relay = Arc::new(Relay::new(&context, broker));
    let watching = tokio::spawn(backlog::watch(context.clone(), pool, Arc::clone(&relay)));
    start_counters(&topics);
    context.health.set_ready(true);
    let outcome = relay_until_stopped(&context, generation, &relay).await;
    context.health.set_ready(false);
    watching.abort();
    forgetting.abort();
    admin.stop().await;
    outcome?;
    broker_watch.end().await
}

/// Starts the role's counters at 0.
fn start_counters(topics: &[TopicSpec]) {
    let (reasons, _) = DEAD_LETTER_REASONS.split_at(RELAY_REASONS);
    start_at_zero("ledger_dead_letters_total", "reason", reasons);
    start_at_zero("ledger_relay_errors_total", "reason", &["unavailable", "no_such_topic", "refused"]);
    for topic in topics {
        metrics::counter!("ledger_relay_published_total", "topic" => topic.name.clone()).increment(0);
    }
}

async fn relay_until_stopped(
    context: &Context,
    generation: Option<i64>,
    relay: &Arc<Relay>,
) -> anyhow::Result<()> {
    let (names, ttl) = (lanes::lease_names(), context.config.relay.lease_ttl);
    let mut group = LeaseGroup::join_in_generation(context, generation, "relay", names, ttl);
    let mut in_flight = JoinSet::new();
    let outcome = scan_and_deliver(context, relay, &mut group, &mut in_flight).await;
    if timeout(STOP_GRACE, async { while in_flight.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!(
            "requests are still in flight; the next owner of their lanes may publish their rows again"
        );
    }
    in_flight.shutdown().await;
    relay.abandon().await;
    group.leave().await;
    outcome
}

/// The parts of the relay that its health shows.
struct RelayHealth {
    reading: HealthPart,
    publishing: HealthPart,
}

impl RelayHealth {
    fn new(context: &Context) -> Self {
        Self {
            reading: context.health.part("reading the outbox"),
            publishing: context.health.part("publishing"),
        }
    }

    fn show(&self, relay: &Relay, group: &LeaseGroup) {
        self.publishing.set_failing(relay.is_publishing_failing());
        // A relay without lanes does not read.
        if group.held().is_empty() {
            self.reading.set_failing(false);
        }
    }
}

/// The loop: scans the lanes that are not being delivered, delivers the rows in the background, and waits if there are
/// none.
async fn scan_and_deliver(
    context: &Context,
    relay: &Arc<Relay>,
    group: &mut LeaseGroup,
    in_flight: &mut JoinSet<Share>,
) -> anyhow::Result<()> {
    let settings = &context.config.relay;
    let mut polling = Backoff::new(settings.poll_interval_min, settings.poll_interval_max);
    let mut retrying = Backoff::new(RETRY_INTERVAL_MIN, RETRY_INTERVAL_MAX);
    let mut outage = context.outages.log_of("publishing the outbox");
    let health = RelayHealth::new(context);
    let mut lanes = LaneSchedule::default();
    while !context.stop.is_requested() {
        if let Some(refusal) = relay.refusal() {
            return Err(refusal).context("fix the broker and start the relay again");
        }
        let mut wait = settings.poll_interval_max;
        health.show(relay, group);
        let share = if in_flight.len() < BATCHES_MAX { lanes.next_share(&group.held()) } else { None };
        if let Some(share) = share {
            let read = tokio::select! {
                read = relay.read(&share.leases) => read,
                () = context.stop.requested() => break,
            };
            health.reading.set_failing(read.is_err());
            match &read {
                Ok(_) => {
                    outage.succeeded();
                    retrying.reset();
                }
                Err(RelayError::Broker(refusal)) if !refusal.is_transient() => {
                    read.context("fix the broker and start the relay again")?;
                    continue;
                }
                Err(error) => {
                    outage.failed(error);
                    wait = retrying.next_wait();
                }
            }
            match read {
                Ok(batch) if batch.is_empty() && batch.resumes() => continue,
                Ok(batch) if batch.is_empty() => match lanes.found_nothing() {
                    true => wait = polling.next_wait(),
                    false => continue,
                },
                Ok(batch) => {
                    polling.reset();
                    lanes.take(&share, batch.is_full());
                    let relay = Arc::clone(relay);
                    in_flight.spawn(async move {
                        relay.deliver(batch, &share.leases).await;
                        share
                    });
                    continue;
                }
                Err(_) => {}
            }
        }
        tokio::select! {
            Some(ended) = in_flight.join_next() => {
                lanes.give_back(&ended.context("a delivery panicked")?);
            }
            () = sleep(wait) => {}
            () = group.changed() => {}
            () = context.stop.requested() => {}
        }
    }
    Ok(())
}
