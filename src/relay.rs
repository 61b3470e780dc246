//! `ledger relay`: publishes the outbox, in order per account, to whatever broker is configured.
//!
//! ```text
//!            lanes held by lease                     one request in flight per partition
//! outbox ──▶ look: one query, rows ──▶ sort into ──▶ produce, wait until durable ──▶ remove exactly the
//!    ▲       still present, in order   partitions         (all partitions at once)   acknowledged rows,
//!    └─────── while one share of the lanes is published, the next is read ◀───────── holding the leases
//! ```
//!
//! Guarantees: a row leaves the outbox only after the broker has it, so nothing is lost; the first occurrences of a
//! key's events leave in the order of its rows, whatever crashes; a relay that lost its leases removes nothing.
//! Duplicates may follow a crash; consumers drop them by event id. A partition that fails holds up its own keys and no
//! others. A record that the broker finds too large is kept as a dead letter and its lane goes on.
//!
//! Deliberately absent: a cursor (a row that commits late with a lower id would be skipped; a look begins where no row
//! can appear any more, see [`floors`], and no later), notifications (they
//! serialise commits), and any order between different keys.

mod backlog;
mod delivery;
mod floors;
mod lanes;
mod partitions;
mod past;
mod request;
mod retention;
mod sessions;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

pub use delivery::{Batch, Delivered, Relay, RelayError};
pub use lanes::lease_name;

use self::lanes::{Lanes, Share};
use crate::{
    broker::topic_specs,
    runtime::{Backoff, Boot, Context, LeaseGroup, OutageLog, StartDetails},
};

/// Time for what is in flight to finish after a stop; the rest of the 5 s is for giving up the leases.
const STOP_GRACE: Duration = Duration::from_millis(2500);
const RETRY_INTERVAL_MIN: Duration = Duration::from_millis(100);
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// Batches in flight at once: while one is read, others are being published and removed.
const BATCHES_MAX: usize = 3;

/// Runs the role until asked to stop.
pub async fn run(context: Context) -> anyhow::Result<()> {
    let mut boot = Boot::new(&context, "relay");
    drop(boot.connect().await?);
    let broker = boot.broker_with_topics(&topic_specs(&context.config)).await?;
    let pool = boot.pool()?;
    let admin = boot.started(StartDetails::default())?;
    let forgetting = tokio::spawn(retention::watch(context.clone(), Arc::clone(&broker)));
    let relay = Arc::new(Relay::new(&context.config, broker));
    let watching = tokio::spawn(backlog::watch(context.clone(), pool, Arc::clone(&relay)));
    context.health.set_ready(true);
    let outcome = relay_until_stopped(&context, &relay).await;
    context.health.set_ready(false);
    watching.abort();
    forgetting.abort();
    admin.stop().await;
    outcome
}

async fn relay_until_stopped(context: &Context, relay: &Arc<Relay>) -> anyhow::Result<()> {
    let mut group = LeaseGroup::join(context, "relay", lanes::lease_names(), context.config.relay.lease_ttl);
    let mut in_flight = JoinSet::new();
    let outcome = look_and_deliver(context, relay, &mut group, &mut in_flight).await;
    if timeout(STOP_GRACE, async { while in_flight.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("what is in flight is left to the next relay, which may publish it again");
    }
    in_flight.shutdown().await;
    relay.abandon().await;
    group.leave().await;
    outcome
}

/// The loop: looks at the lanes that are free, hands what it finds over for delivery, waits when there is nothing.
async fn look_and_deliver(
    context: &Context,
    relay: &Arc<Relay>,
    group: &mut LeaseGroup,
    in_flight: &mut JoinSet<Share>,
) -> anyhow::Result<()> {
    let settings = &context.config.relay;
    let mut polling = Backoff::new(settings.poll_interval_min, settings.poll_interval_max);
    let mut retrying = Backoff::new(RETRY_INTERVAL_MIN, RETRY_INTERVAL_MAX);
    let mut outage = OutageLog::new("reading the outbox");
    let mut lanes = Lanes::default();
    while !context.stop.is_requested() {
        if let Some(refusal) = relay.refusal() {
            return Err(refusal).context("set the broker right and start the relay again");
        }
        let mut wait = settings.poll_interval_max;
        let share = if in_flight.len() < BATCHES_MAX { lanes.next_share(&group.held()) } else { None };
        if let Some(share) = share {
            let read = tokio::select! {
                read = relay.read(&share.leases) => read,
                () = context.stop.requested() => break,
            };
            match &read {
                Ok(_) => {
                    outage.succeeded();
                    retrying.reset();
                    context.health.set_ready(true);
                }
                Err(RelayError::Broker(refusal)) if !refusal.is_transient() => {
                    read.context("set the broker right and start the relay again")?;
                    continue;
                }
                Err(error) => {
                    outage.failed(error);
                    context.health.set_ready(false);
                    wait = retrying.next_wait();
                }
            }
            match read {
                Ok(batch) if batch.is_empty() && batch.looks_on() => continue,
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
                lanes.give_back(&ended.context("a delivery ended by a bug")?);
            }
            () = sleep(wait) => {}
            () = group.changed() => {}
            () = context.stop.requested() => {}
        }
    }
    Ok(())
}
