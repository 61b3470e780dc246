//! Waits until nothing is in flight: the outbox is empty and the group has handled all that the topic holds.

use std::time::Duration;

use tokio::time::Instant;

use super::report::Check;
use crate::{
    broker::{Broker, BrokerError},
    event::TRANSACTIONS_TOPIC,
    repository::{
        Connection, positions,
        verification::{self, Example, Findings},
    },
};

const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Waits until nothing is in flight; returns false when `limit` is over.
pub(super) async fn wait(
    connection: &mut Connection,
    broker: &dyn Broker,
    group: &str,
    limit: Duration,
) -> anyhow::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        if is_quiet(connection, broker, group).await? {
            return Ok(true);
        }
        if Instant::now() + POLL_INTERVAL > deadline {
            return Ok(false);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn is_quiet(connection: &mut Connection, broker: &dyn Broker, group: &str) -> anyhow::Result<bool> {
    if verification::outbox_rows(connection).await? > 0 {
        return Ok(false);
    }
    let partitions = match broker.partitions(TRANSACTIONS_TOPIC).await {
        Ok(partitions) => partitions,
        Err(BrokerError::NoSuchTopic(_)) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    let positions = positions::list(connection, Some(group)).await?;
    for partition in 0..partitions {
        let range = broker.offset_range(TRANSACTIONS_TOPIC, partition).await?;
        let position = positions
            .iter()
            .find(|position| position.topic == TRANSACTIONS_TOPIC && position.partition == partition);
        if position.map_or(range.earliest, |position| position.next_offset) < range.latest {
            return Ok(false);
        }
    }
    // The handling of the last events may have inserted outbox rows.
    Ok(verification::outbox_rows(connection).await? == 0)
}

pub(super) fn check(quiet: bool, limit: Duration) -> Check {
    let mut found = Findings::default();
    if !quiet {
        found.push(|| {
            let limit = humantime::format_duration(limit);
            Example::new(format!("something was still in flight after {limit}"))
        });
    }
    Check::of("quiet", "nothing is in flight", 1, found)
}
