//! Where an owner begins: at the stored position, if the log is still the one that the position belongs to.

use anyhow::Context as _;

use super::store::PartitionStore;
use crate::{
    broker::{BrokerError, SharedBroker},
    repository::{
        Connection,
        positions::{Position, PositionMove},
    },
};

/// Reads the position, or creates it for a group that is new to the partition. Fails if the partition is halted or has
/// another log now.
pub(super) async fn position(
    store: &PartitionStore,
    broker: &SharedBroker,
    connection: &mut Connection,
) -> anyhow::Result<Position> {
    let mut found = store.position(connection).await?;
    if found.is_none() {
        create(store, broker, connection).await?;
        found = store.position(connection).await?;
    }
    let position = found.with_context(|| format!("the position of {} has disappeared", store.name()))?;
    if let Some(halted) = store.halted(connection).await? {
        return Err(halted.into());
    }
    check_log(store, broker, connection, position).await
}

/// Compares the id of the log. A broker without ids cannot be checked.
async fn check_log(
    store: &PartitionStore,
    broker: &SharedBroker,
    connection: &mut Connection,
    position: Position,
) -> anyhow::Result<Position> {
    let (topic, partition) = (&store.name().topic, store.name().partition);
    let Some(log_id) = broker.log_id(topic, partition).await? else { return Ok(position) };
    match position.log_id {
        None => {
            store.adopt_log(connection, position.next_offset, log_id).await?;
            Ok(Position { log_id: Some(log_id), ..position })
        }
        Some(expected) if expected != log_id => Err(BrokerError::LogReplaced {
            topic: topic.clone(),
            partition,
            expected: Some(expected),
            found: Some(log_id),
        }
        .into()),
        Some(_) => Ok(position),
    }
}

/// A new group begins with the earliest record.
async fn create(
    store: &PartitionStore,
    broker: &SharedBroker,
    connection: &mut Connection,
) -> anyhow::Result<()> {
    let (topic, partition) = (&store.name().topic, store.name().partition);
    let log_id = broker.log_id(topic, partition).await?;
    let earliest = broker.offset_range(topic, partition).await?.earliest;
    store.create_position(connection, earliest, log_id).await?;
    // Retention may have removed records before the position was stored. A new group may skip them.
    let later = broker.offset_range(topic, partition).await?.earliest;
    if later > earliest {
        let change = PositionMove { from: earliest, to: later, interrupted: false, leader_epoch: None };
        store.advance(connection, change).await?;
    }
    Ok(())
}
