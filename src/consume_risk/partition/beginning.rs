//! Where an owner begins: at the stored position, if the position belongs to the log that the partition has.
//!
//! No database connection is held during a request to the broker, because other partitions may wait for it.

use std::sync::Arc;

use anyhow::Context as _;
use uuid::Uuid;

use super::{super::shared_connections::SharedConnections, log_check::LogCheck, store::PartitionStore};
use crate::{
    broker::{BrokerError, SharedBroker},
    repository::positions::{Position, PositionMove},
};

/// Reads the position, or creates it for a group that is new to the partition. Fails if the partition is halted or has
/// another log now.
pub(super) async fn position(
    store: &PartitionStore,
    broker: &SharedBroker,
    connections: &Arc<SharedConnections>,
) -> anyhow::Result<Position> {
    let mut lent = connections.take().await?;
    let found = store.position(lent.connection()).await?;
    let halted = store.halted(lent.connection()).await?;
    lent.give_back();
    if let Some(halted) = halted {
        return Err(halted.into());
    }
    let log_id = broker.log_id(&store.name().topic, store.name().partition).await?;
    let position = match found {
        Some(position) => position,
        None => create(store, broker, connections, log_id).await?,
    };
    match LogCheck::new(position.log_id, log_id) {
        LogCheck::Fits => Ok(position),
        LogCheck::Adopt(log_id) => {
            let mut lent = connections.take().await?;
            store.adopt_log(lent.connection(), position.next_offset, log_id).await?;
            lent.give_back();
            Ok(Position { log_id: Some(log_id), ..position })
        }
        LogCheck::Replaced { expected, found } => Err(BrokerError::LogReplaced {
            topic: store.name().topic.clone(),
            partition: store.name().partition,
            expected: Some(expected),
            found: Some(found),
        }
        .into()),
    }
}

/// A new group begins with the earliest record.
async fn create(
    store: &PartitionStore,
    broker: &SharedBroker,
    connections: &Arc<SharedConnections>,
    log_id: Option<Uuid>,
) -> anyhow::Result<Position> {
    let (topic, partition) = (&store.name().topic, store.name().partition);
    let earliest = broker.offset_range(topic, partition).await?.earliest;
    let mut lent = connections.take().await?;
    store.create_position(lent.connection(), earliest, log_id).await?;
    lent.give_back();
    // Retention may have removed records before the position was stored. A new group may skip them.
    let later = broker.offset_range(topic, partition).await?.earliest;
    let mut lent = connections.take().await?;
    if later > earliest {
        let change = PositionMove { from: earliest, to: later, interrupted: false, leader_epoch: None };
        store.advance(lent.connection(), change).await?;
    }
    let position = store.position(lent.connection()).await?;
    lent.give_back();
    position.with_context(|| format!("the position of {} has disappeared", store.name()))
}
