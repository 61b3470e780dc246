//! Shows the positions of a consumer group to Kafka's own tools.
//!
//! The positions that count are in PostgreSQL; Kafka gets a copy. The group has no members in Kafka.

use std::{collections::HashMap, sync::Arc};

use kafka_protocol::{
    ResponseError,
    messages::{
        FindCoordinatorRequest, GroupId, OffsetCommitRequest, TopicName,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    },
    protocol::StrBytes,
};
use tokio::{sync::Mutex, time::sleep};

use super::{
    connect::{Connector, host_and_port},
    connection::Connection,
    requests::text,
};
use crate::broker::BrokerError;

/// Marks a commit from outside the group, like that of a consumer that assigns partitions to itself.
const NO_GENERATION: i32 = -1;

/// Commits positions, and keeps a connection to the coordinator of each group.
pub(super) struct GroupPositions {
    connector: Arc<Connector>,
    coordinators: Mutex<HashMap<String, Connection>>,
}

impl GroupPositions {
    pub(super) fn new(connector: Arc<Connector>) -> Self {
        Self { connector, coordinators: Mutex::default() }
    }

    /// Commits (partition, next offset) pairs of one topic. A failure makes the next call look up the coordinator.
    pub(super) async fn commit(
        &self,
        group: &str,
        topic: &str,
        positions: &[(i32, i64)],
    ) -> Result<(), BrokerError> {
        let mut coordinators = self.coordinators.lock().await;
        let mut coordinator = match coordinators.remove(group) {
            Some(coordinator) => coordinator,
            None => self.connector.connect_to(self.coordinator(group).await?).await?,
        };
        sleep(coordinator.throttle_time_left()).await;
        commit_to(&mut coordinator, group, topic, positions).await?;
        coordinators.insert(group.to_owned(), coordinator);
        Ok(())
    }

    /// Returns the `host:port` of the broker that keeps the positions of the group.
    async fn coordinator(&self, group: &str) -> Result<String, BrokerError> {
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
        let answer = self.connector.connect_to_any().await?.call(&request).await?;
        let unavailable = |detail: String| BrokerError::Unavailable { detail };
        let found =
            answer.coordinators.first().ok_or_else(|| unavailable("no coordinator was named".into()))?;
        if let Some(error) = ResponseError::try_from_code(found.error_code) {
            return Err(unavailable(format!("the coordinator of group {group}: {error:?}")));
        }
        Ok(host_and_port(found.host.as_str(), found.port))
    }
}

async fn commit_to(
    coordinator: &mut Connection,
    group: &str,
    topic: &str,
    positions: &[(i32, i64)],
) -> Result<(), BrokerError> {
    let partitions = positions.iter().map(|(partition, offset)| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
            .with_committed_metadata(Some(StrBytes::from_static_str("")))
    });
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(text(topic)))
        .with_partitions(partitions.collect());
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(NO_GENERATION)
        .with_topics(vec![topic]);
    let answer = coordinator.call(&request).await?;
    let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    match partitions.find_map(|partition| ResponseError::try_from_code(partition.error_code)) {
        None => Ok(()),
        Some(error) => Err(BrokerError::Unavailable {
            detail: format!("the positions of group {group} were not committed: {error:?}"),
        }),
    }
}
