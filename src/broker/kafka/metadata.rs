//! Metadata of the cluster: the partitions of a topic, and the broker that leads each of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kafka_protocol::{
    ResponseError,
    messages::{
        MetadataRequest, MetadataResponse, TopicName,
        metadata_request::MetadataRequestTopic,
        metadata_response::{MetadataResponseBroker, MetadataResponseTopic},
    },
};
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    connect::{Connector, host_and_port},
    connection::Connection,
    deadline::Deadline,
    errors::cannot_describe,
    requests::text,
};
use crate::broker::BrokerError;

/// `host:port` of the leader of each partition; `None` while the partition has no leader.
type Leaders = BTreeMap<i32, Option<String>>;

/// The metadata of one topic.
pub(super) struct TopicMetadata {
    topic: MetadataResponseTopic,
    brokers: Vec<MetadataResponseBroker>,
}

impl TopicMetadata {
    /// Asks for a topic; `None` if there is no such topic. The request never creates one.
    pub(super) async fn fetch(connection: &mut Connection, name: &str) -> Result<Option<Self>, BrokerError> {
        match Self::describe(connection, name).await? {
            Ok(found) => Ok(Some(found)),
            Err(ResponseError::UnknownTopicOrPartition) => Ok(None),
            Err(error) => Err(cannot_describe(name, error)),
        }
    }

    async fn describe(
        connection: &mut Connection,
        name: &str,
    ) -> Result<Result<Self, ResponseError>, BrokerError> {
        let answer = connection.call(&request(&[name])).await?;
        let topic = answer.topics.into_iter().next();
        let topic =
            topic.ok_or_else(|| BrokerError::Unavailable { detail: "no topic was described".into() })?;
        Ok(Self::found(topic, answer.brokers))
    }

    fn found(
        topic: MetadataResponseTopic,
        brokers: Vec<MetadataResponseBroker>,
    ) -> Result<Self, ResponseError> {
        match ResponseError::try_from_code(topic.error_code) {
            // A partition without a leader still counts as a partition.
            None | Some(ResponseError::LeaderNotAvailable) => Ok(Self { topic, brokers }),
            Some(error) => Err(error),
        }
    }

    /// Returns the number of partitions. A topic that was just created may not have any yet.
    pub(super) fn partition_count(&self) -> Result<i32, BrokerError> {
        match self.topic.partitions.len() {
            0 => {
                let name = self.topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
                Err(not_known_everywhere(&name))
            }
            count => Ok(i32::try_from(count).unwrap_or(i32::MAX)),
        }
    }

    /// Returns the id that the topic got when it was created; None if the cluster has no ids.
    fn topic_id(&self) -> Option<Uuid> {
        Some(self.topic.topic_id).filter(|id| !id.is_nil())
    }

    /// Returns the replication factor of the first partition.
    pub(super) fn replication_factor(&self) -> Option<i16> {
        self.topic.partitions.first()?.replica_nodes.len().try_into().ok()
    }

    /// Returns the number of brokers in the cluster.
    pub(super) fn broker_count(&self) -> usize {
        self.brokers.len()
    }

    fn leaders(&self) -> Leaders {
        let address = |node_id| {
            let broker = self.brokers.iter().find(|broker| broker.node_id == node_id)?;
            Some(host_and_port(broker.host.as_str(), broker.port))
        };
        let partitions = self.topic.partitions.iter();
        partitions.map(|partition| (partition.partition_index, address(partition.leader_id))).collect()
    }
}

/// Asks for these topics. The request never creates one.
fn request<Name: AsRef<str>>(topics: &[Name]) -> MetadataRequest {
    let topics = topics
        .iter()
        .map(|name| MetadataRequestTopic::default().with_name(Some(TopicName(text(name.as_ref())))));
    MetadataRequest::default().with_topics(Some(topics.collect())).with_allow_auto_topic_creation(false)
}

/// Answers questions about topics, and remembers the leaders of their partitions.
pub(super) struct Metadata {
    connector: Arc<Connector>,
    request_timeout: Duration,
    leaders: Mutex<HashMap<String, Leaders>>,
    /// Held during a request for leaders: several partitions that need one send a single request.
    lookup: tokio::sync::Mutex<()>,
    /// The connection of the last count of partitions. A running role counts every few seconds, and opening a connection
    /// takes several requests, which a quota counts.
    counting: tokio::sync::Mutex<Option<Connection>>,
}

impl Metadata {
    pub(super) fn new(connector: Arc<Connector>, request_timeout: Duration) -> Self {
        Self {
            connector,
            request_timeout,
            leaders: Mutex::default(),
            lookup: tokio::sync::Mutex::default(),
            counting: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the number of partitions of a topic, or `None` if there is no such topic.
    pub(super) async fn partition_count(&self, topic: &str) -> Result<Option<i32>, BrokerError> {
        let mut connection = self.connector.connect_to_any().await?;
        let found = TopicMetadata::fetch(&mut connection, topic).await?;
        found.map(|metadata| metadata.partition_count()).transpose()
    }

    /// Returns the id of a topic, which another topic of the same name does not have. None if the cluster has no ids.
    pub(super) async fn topic_id(&self, topic: &str) -> Result<Option<Uuid>, BrokerError> {
        let mut connection = self.connector.connect_to_any().await?;
        let found = TopicMetadata::fetch(&mut connection, topic).await?;
        Ok(found.ok_or_else(|| BrokerError::NoSuchTopic(topic.to_owned()))?.topic_id())
    }

    /// Explains why the leader of a partition does not know the topic id `expected`. Only an answer of the cluster counts:
    /// a broker that has just started may not know its topics yet.
    pub(super) async fn replaced(&self, topic: &str, partition: i32, expected: Option<Uuid>) -> BrokerError {
        match Deadline::after(self.request_timeout).limit(self.topic_id(topic)).await {
            Ok(found) if found == expected => not_known_everywhere(topic),
            Ok(found) => BrokerError::LogReplaced { topic: topic.to_owned(), partition, expected, found },
            Err(error) => error,
        }
    }

    /// Returns the number of partitions of each of these topics that exists. A topic that the user may not describe is left
    /// out: a consumer needs no permission for topics that it does not read.
    pub(super) async fn partition_counts(
        &self,
        topics: &[String],
    ) -> Result<BTreeMap<String, i32>, BrokerError> {
        let mut kept = self.counting.lock().await;
        if let Some(mut connection) = kept.take() {
            sleep(connection.throttle_time_left()).await;
            // The broker may have closed the connection, or be silent. Then a new one shows whether the cluster answers.
            let kept_limit = Deadline::after(self.request_timeout / 2);
            if let Ok(answer) = kept_limit.limit(connection.call(&request(topics))).await {
                *kept = Some(connection);
                return counts(answer);
            }
        }
        let mut connection = self.connector.connect_to_any().await?;
        let answer = connection.call(&request(topics)).await?;
        *kept = Some(connection);
        counts(answer)
    }

    /// Returns the `host:port` of the broker that leads the partition.
    pub(super) async fn leader(&self, topic: &str, partition: i32) -> Result<String, BrokerError> {
        let known = || self.leaders().get(topic)?.get(&partition).cloned();
        let elected = |leader: Option<String>| {
            let detail = || format!("{topic}/{partition} has no leader");
            leader.ok_or_else(|| BrokerError::Unavailable { detail: detail() })
        };
        if let Some(leader) = known() {
            return elected(leader);
        }
        let _lookup = self.lookup.lock().await;
        if let Some(leader) = known() {
            return elected(leader);
        }
        let no_such_topic = || BrokerError::NoSuchTopic(topic.to_owned());
        let mut connection = self.connector.connect_to_any().await?;
        let found = TopicMetadata::fetch(&mut connection, topic).await?.ok_or_else(no_such_topic)?.leaders();
        let leader = found.get(&partition).cloned();
        self.leaders().insert(topic.to_owned(), found);
        elected(leader.ok_or_else(no_such_topic)?)
    }

    /// Forgets the leader of one partition; the other partitions keep theirs.
    pub(super) fn forget_leader(&self, topic: &str, partition: i32) {
        if let Some(leaders) = self.leaders().get_mut(topic) {
            leaders.remove(&partition);
        }
    }

    /// Checks an error with the cluster if it says that a topic is missing. A broker that has just started may not know
    /// its topics yet, so only an answer of the cluster counts.
    pub(super) async fn confirm(&self, topic: &str, partition: i32, error: BrokerError) -> BrokerError {
        if !matches!(error, BrokerError::NoSuchTopic(_)) {
            return error;
        }
        match Deadline::after(self.request_timeout).limit(self.partition_count(topic)).await {
            Ok(None) => error,
            Ok(Some(actual)) if actual <= partition => {
                BrokerError::TooFewPartitions { topic: topic.to_owned(), actual, expected: partition + 1 }
            }
            _ => not_known_everywhere(topic),
        }
    }

    fn leaders(&self) -> MutexGuard<'_, HashMap<String, Leaders>> {
        self.leaders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn counts(answer: MetadataResponse) -> Result<BTreeMap<String, i32>, BrokerError> {
    let mut counts = BTreeMap::new();
    for topic in answer.topics {
        let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
        match TopicMetadata::found(topic, Vec::new()) {
            Ok(found) => {
                counts.insert(name, found.partition_count()?);
            }
            Err(ResponseError::UnknownTopicOrPartition | ResponseError::TopicAuthorizationFailed) => {}
            Err(error) => return Err(cannot_describe(&name, error)),
        }
    }
    Ok(counts)
}

/// The error while a topic exists, but the broker that was asked does not know it yet.
pub(super) fn not_known_everywhere(topic: &str) -> BrokerError {
    BrokerError::Unavailable { detail: format!("topic {topic} is not known to every broker yet") }
}
