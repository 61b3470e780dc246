//! Connections to the cluster: made anew where one fell silent, and never waited on without end.

use std::{sync::Arc, time::Duration};

use rskafka::{
    BackoffConfig,
    client::{
        Client, ClientBuilder,
        error::Error,
        partition::{PartitionClient, UnknownTopicHandling},
    },
};
use tokio::time::timeout;

use super::{KafkaBroker, Purpose, lock, refusal::broker_error, wire::Wire};
use crate::broker::BrokerError;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

impl KafkaBroker {
    /// The cluster's client, made anew where the last one fell silent.
    pub(super) async fn client(&self) -> Result<Arc<Client>, BrokerError> {
        let mut current = self.client.lock().await;
        if let Some(client) = &*current {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(self.build_client().await?);
        *current = Some(Arc::clone(&client));
        Ok(client)
    }

    pub(super) async fn build_client(&self) -> Result<Client, BrokerError> {
        let settings = &self.settings;
        let connecting = async {
            // rskafka would try a wrong password or certificate again and again and then not say what it was, and it
            // would wait for ever for the first server that is silent. So it is told of one that answers.
            let wire = self.wire().await?;
            let mut builder = ClientBuilder::new(vec![wire.address().to_owned()])
                .client_id(settings.client_id.as_str())
                .backoff_config(backoff(settings.request_timeout.min(settings.connect_timeout)));
            if let Some(tls) = &self.security.tls {
                builder = builder.tls_config(Arc::clone(tls));
            }
            if let Some(sasl) = &self.security.sasl {
                builder = builder.sasl_config(sasl.clone());
            }
            builder.build().await.map_err(|error| broker_error("", &error))
        };
        let outcome = timeout(settings.connect_timeout, connecting).await.unwrap_or_else(|_| {
            let detail = format!("no answer within {:?}", settings.connect_timeout);
            Err(BrokerError::Unavailable { detail })
        });
        outcome.map_err(|error| match error {
            BrokerError::Unavailable { detail } => BrokerError::Unavailable {
                detail: format!(
                    "no Kafka at {} (broker.kafka.bootstrap_servers): {detail}",
                    settings.bootstrap_servers
                ),
            },
            refused => refused,
        })
    }

    pub(super) async fn wire(&self) -> Result<Wire, BrokerError> {
        self.wire_to(&self.servers).await
    }

    pub(super) async fn wire_to(&self, addresses: &[String]) -> Result<Wire, BrokerError> {
        let settings = &self.settings;
        Wire::open(addresses, &self.security, &settings.client_id, settings.connect_timeout).await
    }

    /// A connection that fell silent may be dead without anybody having said so, and rskafka would keep it.
    pub(super) fn forget_connections(&self) {
        // Whoever is making a new client holds the lock; nothing is to be forgotten then.
        if let Ok(mut current) = self.client.try_lock() {
            *current = None;
            lock(&self.partition_clients).clear();
        }
    }

    /// Runs a call with an end. `extra` is time that the call spends waiting on purpose.
    pub(super) async fn bounded<T>(
        &self,
        extra: Duration,
        call: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let limit = self.settings.request_timeout + extra;
        match timeout(limit, call).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.forget_connections();
                Err(BrokerError::Unavailable { detail: format!("no answer from Kafka within {limit:?}") })
            }
        }
    }

    pub(super) async fn partition_client(
        &self,
        topic: &str,
        partition: i32,
        purpose: Purpose,
    ) -> Result<Arc<PartitionClient>, BrokerError> {
        let key = (topic.to_owned(), partition, purpose);
        let known = lock(&self.partition_clients).get(&key).cloned();
        if let Some(client) = known {
            return Ok(client);
        }
        let client =
            self.client().await?.partition_client(topic, partition, UnknownTopicHandling::Error).await;
        let client = Arc::new(client.map_err(|error| broker_error(topic, &error))?);
        lock(&self.partition_clients).insert(key, Arc::clone(&client));
        Ok(client)
    }

    /// Runs a call on the partition's client, and drops the client if the call fails in a way that may be its fault.
    pub(super) async fn on_partition<T, Call, Answer>(
        &self,
        topic: &str,
        partition: i32,
        purpose: Purpose,
        extra: Duration,
        call: Call,
    ) -> Result<T, BrokerError>
    where
        Call: FnOnce(Arc<PartitionClient>) -> Answer,
        Answer: Future<Output = Result<T, Error>>,
    {
        let outcome = self
            .bounded(extra, async {
                let client = self.partition_client(topic, partition, purpose).await?;
                call(client).await.map_err(|error| broker_error(topic, &error))
            })
            .await;
        match outcome {
            Err(error @ BrokerError::OffsetOutOfRange { .. }) => Err(error),
            Err(error) if error.is_about_a_record() => Err(error),
            Err(error) => {
                lock(&self.partition_clients).remove(&(topic.to_owned(), partition, purpose));
                Err(self.confirmed(topic, partition, error).await)
            }
            Ok(value) => Ok(value),
        }
    }
}

/// rskafka counts only its waits against the deadline; the time limit around each call does the rest.
fn backoff(deadline: Duration) -> BackoffConfig {
    BackoffConfig { init_backoff: BACKOFF_MIN, max_backoff: BACKOFF_MAX, base: 2.0, deadline: Some(deadline) }
}
