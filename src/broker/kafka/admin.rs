//! Topics with settings, and positions for Kafka's own tools.

use kafka_protocol::{
    ResponseError,
    messages::{
        CreateTopicsRequest, FindCoordinatorRequest, GroupId, OffsetCommitRequest, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    },
    protocol::StrBytes,
};

use super::wire::{Wire, address};
use crate::broker::{BrokerError, Retention, TopicSpec};

/// A commit from outside any generation of the group, as a consumer with its own assignment sends it.
const NO_GENERATION: i32 = -1;

pub(super) const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
pub(super) const RETENTION_MS: &str = "retention.ms";
pub(super) const RETENTION_BYTES: &str = "retention.bytes";

pub(super) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn describe(code: i16) -> String {
    ResponseError::try_from_code(code).map_or_else(|| "no error".into(), |error| format!("{error:?}"))
}

/// What Kafka calls no bound.
const UNBOUNDED: &str = "-1";

/// A topic's settings by Kafka's names.
pub(super) fn settings(topic: &TopicSpec) -> [(&'static str, String); 3] {
    let Retention { age, bytes } = topic.retention;
    let unbounded = || UNBOUNDED.to_owned();
    [
        (MIN_INSYNC_REPLICAS, topic.min_insync_replicas.to_string()),
        (RETENTION_MS, age.map_or_else(unbounded, |age| age.as_millis().to_string())),
        (RETENTION_BYTES, bytes.map_or_else(unbounded, |bytes| bytes.to_string())),
    ]
}

/// Creates a topic with its settings. A topic that is there already is left as it is.
pub(super) async fn create_topic(
    wire: &mut Wire,
    topic: &TopicSpec,
    timeout_ms: i32,
) -> Result<(), BrokerError> {
    let configs = settings(topic).map(|(name, value)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(&value)))
    });
    let wanted = CreatableTopic::default()
        .with_name(TopicName(text(&topic.name)))
        .with_num_partitions(topic.partitions)
        .with_replication_factor(topic.replication_factor)
        .with_configs(configs.into());
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(timeout_ms);
    let answer = wire.call(&request).await?;
    let Some(outcome) = answer.topics.first() else { return Ok(()) };
    let error = ResponseError::try_from_code(outcome.error_code);
    match error {
        None | Some(ResponseError::TopicAlreadyExists) => Ok(()),
        Some(error) => {
            let said = outcome.error_message.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
            let detail = format!("topic {} cannot be created: {error:?}{said}", topic.name);
            match error {
                ResponseError::RequestTimedOut
                | ResponseError::NotController
                | ResponseError::CoordinatorNotAvailable
                | ResponseError::ThrottlingQuotaExceeded => Err(BrokerError::Unavailable { detail }),
                _ => Err(BrokerError::Refused { detail }),
            }
        }
    }
}

/// `host:port` of the broker that keeps the group's positions.
pub(super) async fn find_coordinator(wire: &mut Wire, group: &str) -> Result<String, BrokerError> {
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
    let answer = wire.call(&request).await?;
    let unavailable = |detail: String| BrokerError::Unavailable { detail };
    let coordinator =
        answer.coordinators.first().ok_or_else(|| unavailable("no coordinator was named".into()))?;
    match coordinator.error_code {
        0 => Ok(address(coordinator.host.as_str(), coordinator.port)),
        code => Err(unavailable(format!("the coordinator of group {group}: {}", describe(code)))),
    }
}

/// Commits positions of a group without being its member.
pub(super) async fn commit_positions(
    wire: &mut Wire,
    group: &str,
    topic: &str,
    positions: &[(i32, i64)],
) -> Result<(), BrokerError> {
    let partitions = positions
        .iter()
        .map(|(partition, offset)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*partition)
                .with_committed_offset(*offset)
                .with_committed_metadata(Some(StrBytes::from_static_str("")))
        })
        .collect();
    let topic =
        OffsetCommitRequestTopic::default().with_name(TopicName(text(topic))).with_partitions(partitions);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(NO_GENERATION)
        .with_topics(vec![topic]);
    let answer = wire.call(&request).await?;
    let mut codes = answer.topics.iter().flat_map(|topic| &topic.partitions).map(|answer| answer.error_code);
    match codes.find(|code| *code != 0) {
        None => Ok(()),
        Some(code) => Err(BrokerError::Unavailable {
            detail: format!("positions of group {group} are not taken: {}", describe(code)),
        }),
    }
}
