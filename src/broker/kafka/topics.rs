//! Topics and their settings: describes them, checks them and creates missing ones.

use std::{str::FromStr, sync::Arc, time::Duration};

use kafka_protocol::{
    ResponseError,
    messages::{
        CreateTopicsRequest, DescribeConfigsRequest, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::DescribeConfigsResult,
    },
};
use tokio::time::{Instant, sleep};

use super::{
    connect::Connector,
    connection::Connection,
    errors::cannot_describe,
    metadata::{Metadata, TopicMetadata, not_known_everywhere},
    requests::{millis, text},
};
use crate::broker::{BrokerError, Retention, TopicSpec, TopicState};

/// The number that the protocol gives to a topic among the resources with settings.
const RESOURCE_TOPIC: i8 = 2;
/// The interval of the checks whether a new topic is known everywhere.
const NEW_TOPIC_CHECK_INTERVAL: Duration = Duration::from_millis(50);

const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
const RETENTION_MS: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
const CLEANUP_POLICY: &str = "cleanup.policy";
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const UNCLEAN_ELECTION: &str = "unclean.leader.election.enable";
/// Removes old records, and keeps all others.
const DELETE: &str = "delete";
/// The value of a retention setting that means "no limit".
const UNLIMITED: &str = "-1";

/// The topics of the cluster.
pub(super) struct Topics {
    connector: Arc<Connector>,
    metadata: Arc<Metadata>,
    request_timeout: Duration,
}

impl Topics {
    pub(super) fn new(connector: Arc<Connector>, metadata: Arc<Metadata>, request_timeout: Duration) -> Self {
        Self { connector, metadata, request_timeout }
    }

    /// Describes a topic, or returns `None` if there is no such topic.
    pub(super) async fn describe(&self, name: &str) -> Result<Option<TopicState>, BrokerError> {
        let mut connection = self.connector.connect_to_any().await?;
        let Some(metadata) = TopicMetadata::fetch(&mut connection, name).await? else { return Ok(None) };
        let state = TopicState {
            replication_factor: metadata.replication_factor(),
            brokers: Some(metadata.broker_count()),
            ..TopicState::of_partitions(metadata.partition_count()?)
        };
        Ok(Some(match self.settings(&mut connection, name).await? {
            None => TopicState { hides_settings: true, ..state },
            Some(settings) => TopicState {
                min_insync_replicas: setting(&settings, MIN_INSYNC_REPLICAS),
                // "-1" is no unsigned number, so an unlimited retention becomes `None`.
                retention: Some(Retention {
                    age: setting(&settings, RETENTION_MS).map(Duration::from_millis),
                    bytes: setting(&settings, RETENTION_BYTES),
                }),
                cleanup_policy: setting(&settings, CLEANUP_POLICY),
                message_bytes_max: setting(&settings, MAX_MESSAGE_BYTES),
                unclean_election: setting(&settings, UNCLEAN_ELECTION),
                ..state
            },
        }))
    }

    /// Returns the settings of a topic, or `None` if this user may not read them. That permission is not needed to
    /// publish and to consume.
    async fn settings(
        &self,
        connection: &mut Connection,
        name: &str,
    ) -> Result<Option<DescribeConfigsResult>, BrokerError> {
        let keys = [
            MIN_INSYNC_REPLICAS,
            RETENTION_MS,
            RETENTION_BYTES,
            CLEANUP_POLICY,
            MAX_MESSAGE_BYTES,
            UNCLEAN_ELECTION,
        ];
        let keys = keys.map(text).into();
        let resource = DescribeConfigsResource::default()
            .with_resource_type(RESOURCE_TOPIC)
            .with_resource_name(text(name))
            .with_configuration_keys(Some(keys));
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let Some(described) = connection.call(&request).await?.results.into_iter().next() else {
            return Ok(None);
        };
        match ResponseError::try_from_code(described.error_code) {
            None => Ok(Some(described)),
            Some(ResponseError::TopicAuthorizationFailed | ResponseError::ClusterAuthorizationFailed) => {
                Ok(None)
            }
            Some(error) => Err(cannot_describe(name, error)),
        }
    }

    /// Checks that a topic has enough partitions; creates a missing one if `create` is set.
    pub(super) async fn ensure(&self, topic: &TopicSpec, create: bool) -> Result<(), BrokerError> {
        let actual = match self.metadata.partition_count(&topic.name).await? {
            Some(actual) => actual,
            None if create => {
                self.create(topic).await?;
                self.wait_until_known(topic).await?
            }
            None => return Err(BrokerError::NoSuchTopic(topic.name.clone())),
        };
        if actual < topic.partitions {
            return Err(BrokerError::TooFewPartitions {
                topic: topic.name.clone(),
                actual,
                expected: topic.partitions,
            });
        }
        Ok(())
    }

    /// Creates a topic with its settings. An existing topic is not changed.
    async fn create(&self, topic: &TopicSpec) -> Result<(), BrokerError> {
        let settings = settings_of(topic).map(|(name, value)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(&value)))
        });
        let wanted = CreatableTopic::default()
            .with_name(TopicName(text(&topic.name)))
            .with_num_partitions(topic.partitions)
            .with_replication_factor(topic.replication_factor)
            .with_configs(settings.into());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![wanted])
            .with_timeout_ms(millis(self.request_timeout));
        let answer = self.connector.connect_to_any().await?.call(&request).await?;
        let Some(outcome) = answer.topics.first() else { return Ok(()) };
        let message = outcome.error_message.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
        let detail = |error| format!("topic {} cannot be created: {error:?}{message}", topic.name);
        match ResponseError::try_from_code(outcome.error_code) {
            None | Some(ResponseError::TopicAlreadyExists) => Ok(()),
            Some(
                error @ (ResponseError::RequestTimedOut
                | ResponseError::NotController
                | ResponseError::CoordinatorNotAvailable
                | ResponseError::ThrottlingQuotaExceeded),
            ) => Err(BrokerError::Unavailable { detail: detail(error) }),
            Some(error) => Err(BrokerError::Refused { detail: detail(error) }),
        }
    }

    /// Waits until a new topic is known, and returns the number of its partitions.
    async fn wait_until_known(&self, topic: &TopicSpec) -> Result<i32, BrokerError> {
        let deadline = Instant::now() + self.request_timeout;
        loop {
            match self.metadata.partition_count(&topic.name).await? {
                Some(actual) if actual >= topic.partitions => return Ok(actual),
                found if Instant::now() >= deadline => {
                    return found.ok_or_else(|| not_known_everywhere(&topic.name));
                }
                _ => sleep(NEW_TOPIC_CHECK_INTERVAL).await,
            }
        }
    }
}

fn settings_of(topic: &TopicSpec) -> [(&'static str, String); 4] {
    let Retention { age, bytes } = topic.retention;
    let unlimited = || UNLIMITED.to_owned();
    [
        (MIN_INSYNC_REPLICAS, topic.min_insync_replicas.to_string()),
        (RETENTION_MS, age.map_or_else(unlimited, |age| age.as_millis().to_string())),
        (RETENTION_BYTES, bytes.map_or_else(unlimited, |bytes| bytes.to_string())),
        // The default of the cluster may be another policy.
        (CLEANUP_POLICY, DELETE.to_owned()),
    ]
}

fn setting<T: FromStr>(settings: &DescribeConfigsResult, name: &str) -> Option<T> {
    let setting = settings.configs.iter().find(|setting| setting.name.as_str() == name)?;
    setting.value.as_ref()?.as_str().parse().ok()
}
