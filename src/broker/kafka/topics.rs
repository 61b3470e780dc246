//! Topics: whether one is there with as many partitions as it should have, and making one.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{KafkaBroker, admin, describe};
use crate::broker::{BrokerError, TopicSpec};

/// How often to look whether a new topic is known everywhere.
const TOPIC_LOOK_INTERVAL: Duration = Duration::from_millis(50);

impl KafkaBroker {
    /// A broker that has just started may not know its topics yet: a topic or partition is gone for good only if the
    /// cluster says so.
    pub(super) async fn confirmed(&self, topic: &str, partition: i32, error: BrokerError) -> BrokerError {
        if !matches!(error, BrokerError::NoSuchTopic(_)) {
            return error;
        }
        match self.bounded(Duration::ZERO, self.count_partitions(topic)).await {
            Ok(None) => error,
            Ok(Some(actual)) if actual <= partition => {
                BrokerError::TooFewPartitions { topic: topic.to_owned(), actual, expected: partition + 1 }
            }
            _ => BrokerError::Unavailable { detail: format!("topic {topic} is not known everywhere yet") },
        }
    }

    pub(super) async fn count_partitions(&self, topic: &str) -> Result<Option<i32>, BrokerError> {
        let found = describe::layout(&mut self.wire().await?, topic).await?;
        Ok(found.map(|state| state.partitions))
    }

    pub(super) async fn ensure(&self, topic: &TopicSpec, create: bool) -> Result<(), BrokerError> {
        let actual = match self.count_partitions(&topic.name).await? {
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

    pub(super) async fn create(&self, topic: &TopicSpec) -> Result<(), BrokerError> {
        let timeout_ms = i32::try_from(self.settings.request_timeout.as_millis()).unwrap_or(i32::MAX);
        admin::create_topic(&mut self.wire().await?, topic, timeout_ms).await
    }

    pub(super) async fn wait_until_known(&self, topic: &TopicSpec) -> Result<i32, BrokerError> {
        let patience_ends = Instant::now() + self.settings.request_timeout;
        loop {
            match self.count_partitions(&topic.name).await? {
                Some(actual) if actual >= topic.partitions => return Ok(actual),
                found if Instant::now() >= patience_ends => return Ok(found.unwrap_or(0)),
                _ => sleep(TOPIC_LOOK_INTERVAL).await,
            }
        }
    }
}
