//! How a topic of the cluster is: partitions, replicas, and the settings that the configuration knows.

use std::{str::FromStr, time::Duration};

use kafka_protocol::{
    ResponseError,
    messages::{
        DescribeConfigsRequest, MetadataRequest, MetadataResponse, TopicName,
        describe_configs_request::DescribeConfigsResource, metadata_request::MetadataRequestTopic,
        metadata_response::MetadataResponseTopic,
    },
};

use super::{
    admin::{MIN_INSYNC_REPLICAS, RETENTION_BYTES, RETENTION_MS, text},
    connections::Leaders,
    wire::{Wire, address},
};
use crate::broker::{BrokerError, Retention, TopicState};

/// What Kafka's protocol calls a topic among the things that have settings.
const RESOURCE_TOPIC: i8 = 2;

/// The topic, or None if there is none.
pub(super) async fn topic(wire: &mut Wire, name: &str) -> Result<Option<TopicState>, BrokerError> {
    let Some(mut state) = layout(wire, name).await? else { return Ok(None) };
    let resource = DescribeConfigsResource::default()
        .with_resource_type(RESOURCE_TOPIC)
        .with_resource_name(text(name))
        .with_configuration_keys(Some([MIN_INSYNC_REPLICAS, RETENTION_MS, RETENTION_BYTES].map(text).into()));
    let answer = wire.call(&DescribeConfigsRequest::default().with_resources(vec![resource])).await?;
    let Some(described) = answer.results.first() else { return Ok(Some(state)) };
    match ResponseError::try_from_code(described.error_code) {
        // Whoever may not read settings may still read what is published: they stay unknown.
        Some(ResponseError::TopicAuthorizationFailed | ResponseError::ClusterAuthorizationFailed) => {}
        None => {
            let value = |key: &str| {
                let setting = described.configs.iter().find(|setting| setting.name.as_str() == key)?;
                setting.value.as_ref().map(|value| value.to_string())
            };
            state.min_insync_replicas = parsed(value(MIN_INSYNC_REPLICAS));
            // −1 is for ever, which no unsigned number is.
            state.retention = Some(Retention {
                age: parsed(value(RETENTION_MS)).map(Duration::from_millis),
                bytes: parsed(value(RETENTION_BYTES)),
            });
        }
        Some(error) => return Err(failed(name, error)),
    }
    Ok(Some(state))
}

async fn metadata(wire: &mut Wire, name: &str) -> Result<MetadataResponse, BrokerError> {
    let wanted = MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
    let request =
        MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(false);
    wire.call(&request).await
}

fn of_topic(answer: &MetadataResponse, name: &str) -> Result<Option<MetadataResponseTopic>, BrokerError> {
    let found = answer.topics.first();
    let found = found.ok_or_else(|| BrokerError::Unavailable { detail: "no topic was described".into() })?;
    match ResponseError::try_from_code(found.error_code) {
        // A partition without a leader is one all the same.
        None | Some(ResponseError::LeaderNotAvailable) => Ok(Some(found.clone())),
        Some(ResponseError::UnknownTopicOrPartition) => Ok(None),
        Some(error) => Err(failed(name, error)),
    }
}

/// Who leads each partition of the topic.
pub(super) async fn leaders(wire: &mut Wire, name: &str) -> Result<Leaders, BrokerError> {
    let answer = metadata(wire, name).await?;
    let found = of_topic(&answer, name)?.ok_or_else(|| BrokerError::NoSuchTopic(name.to_owned()))?;
    let of_leader = |leader| {
        let broker = answer.brokers.iter().find(|broker| broker.node_id == leader)?;
        Some(address(broker.host.as_str(), broker.port))
    };
    let partitions = found.partitions.iter();
    Ok(partitions.map(|partition| (partition.partition_index, of_leader(partition.leader_id))).collect())
}

/// The topic without its settings.
pub(super) async fn layout(wire: &mut Wire, name: &str) -> Result<Option<TopicState>, BrokerError> {
    let Some(found) = of_topic(&metadata(wire, name).await?, name)? else { return Ok(None) };
    if found.partitions.is_empty() {
        return Err(BrokerError::Unavailable { detail: format!("topic {name} is not known everywhere yet") });
    }
    let replicas = found.partitions.first().map(|partition| partition.replica_nodes.len());
    Ok(Some(TopicState {
        partitions: i32::try_from(found.partitions.len()).unwrap_or(i32::MAX),
        replication_factor: replicas.and_then(|count| count.try_into().ok()),
        min_insync_replicas: None,
        retention: None,
    }))
}

fn parsed<T: FromStr>(value: Option<String>) -> Option<T> {
    value?.parse().ok()
}

fn failed(name: &str, error: ResponseError) -> BrokerError {
    let detail = format!("topic {name} cannot be described: {error:?}");
    match error.is_retriable() {
        true => BrokerError::Unavailable { detail },
        false => BrokerError::Refused { detail },
    }
}
