//! Compares the configured broker with the broker that the database records, at the start and while a role runs.
//!
//! ```text
//! start:   read the record ─▶ same kind? ─▶ connect ─▶ same cluster, same partitions? ─▶ record what is new (roles only)
//! running: every 10 s the same comparison; a difference stops the role
//! ```
//!
//! Guarantees:
//! - The first relay or consumer records its broker. After that, a role or command with another broker does nothing.
//! - A topic keeps the number of partitions that it began with: fewer and more are both refused.
//! - A role that sleeps through a switch works no more: it gets no lease in another generation than its own.
//!
//! Deliberately absent: the change of the record, which is `ledger broker switch`.

use std::{collections::BTreeMap, time::Duration};

use tokio_util::task::AbortOnDropHandle;

use super::{Context, Stop};
use crate::{
    broker::{BrokerIdentity, BrokerState, SharedBroker},
    config::{BrokerKind, Config},
    repository::{
        self, Connection, RepositoryError,
        broker_identity::{self, RecordedBroker, RecordedTopic},
        transaction,
    },
};

const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How the configured broker differs from the recorded one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerMismatch {
    /// It is another broker.
    #[error(
        "the database works with the broker {recorded} (recorded by {by} at {at}), but {origin} is {configured}; configure \
         the recorded broker, or see what a move would do with `ledger broker switch --dry-run`"
    )]
    OtherBroker {
        /// The recorded broker.
        recorded: String,
        /// Who recorded it.
        by: String,
        /// When.
        at: String,
        /// The setting that names the configured broker.
        origin: String,
        /// The configured broker.
        configured: String,
    },
    /// A topic has another number of partitions.
    #[error(
        "topic {topic} of {broker} has {actual} partitions, but the database records {recorded}: with another number, keys \
         move to other partitions and lose their order; see what accepting it would do with `ledger broker switch --dry-run`"
    )]
    OtherPartitions {
        /// The topic.
        topic: String,
        /// The broker.
        broker: String,
        /// The number of partitions that the topic has.
        actual: i32,
        /// The recorded number.
        recorded: i32,
    },
    /// The record changed while the role ran.
    #[error(
        "the broker was switched while this process ran; start it again with the settings of the new broker"
    )]
    Switched,
}

/// The record of the database.
#[derive(Debug, Clone, Default)]
pub struct BrokerRecord {
    /// None before the first relay or consumer.
    pub broker: Option<RecordedBroker>,
    /// The topics.
    pub topics: Vec<RecordedTopic>,
}

impl BrokerRecord {
    /// Reads the record.
    pub async fn read(connection: &mut Connection) -> Result<Self, RepositoryError> {
        let broker = broker_identity::read(connection).await?;
        Ok(Self { broker, topics: broker_identity::topics(connection).await? })
    }

    /// Returns the generation, if a broker is recorded.
    pub fn generation(&self) -> Option<i64> {
        self.broker.as_ref().map(|broker| broker.generation)
    }

    fn topic_names(&self) -> Vec<String> {
        self.topics.iter().map(|topic| topic.topic.clone()).collect()
    }

    /// Refuses a configuration with another kind of broker. Needs no broker.
    pub fn check_kind(&self, config: &Config) -> Result<(), BrokerMismatch> {
        match &self.broker {
            Some(recorded) if recorded.identity.kind != config.broker.kind => {
                Err(other_broker(recorded, config, None))
            }
            _ => Ok(()),
        }
    }

    /// Refuses another broker, or another number of partitions. Pure.
    pub fn check(&self, config: &Config, found: &BrokerState) -> Result<(), BrokerMismatch> {
        let Some(recorded) = &self.broker else { return Ok(()) };
        if recorded.identity != found.identity {
            return Err(other_broker(recorded, config, Some(&found.identity)));
        }
        for topic in &self.topics {
            match found.partitions.get(&topic.topic) {
                Some(actual) if *actual != topic.partitions => {
                    return Err(BrokerMismatch::OtherPartitions {
                        topic: topic.topic.clone(),
                        broker: recorded.identity.to_string(),
                        actual: *actual,
                        recorded: topic.partitions,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Asks the broker for its identity and partitions and compares them with the record.
    pub(super) async fn check_broker(&self, config: &Config, broker: &SharedBroker) -> anyhow::Result<()> {
        let found = broker.identify(&self.topic_names()).await?;
        Ok(self.check(config, &found)?)
    }
}

fn other_broker(
    recorded: &RecordedBroker,
    config: &Config,
    configured: Option<&BrokerIdentity>,
) -> BrokerMismatch {
    let (origin, configured) = match (config.broker.kind, configured) {
        (BrokerKind::Kafka, Some(found)) => {
            let servers = &config.broker.kafka.bootstrap_servers;
            (format!("broker.kafka.bootstrap_servers = {servers}"), found.to_string())
        }
        (kind, _) => ("broker.kind".to_owned(), kind.name().to_owned()),
    };
    BrokerMismatch::OtherBroker {
        recorded: recorded.identity.to_string(),
        by: recorded.recorded_by.clone(),
        at: recorded.recorded_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        origin,
        configured,
    }
}

/// Records the broker and the partitions of these topics unless they are recorded already. Returns the record.
pub(super) async fn record(
    connection: &mut Connection,
    config: &Config,
    broker: &SharedBroker,
    topics: &[String],
    by: &str,
) -> anyhow::Result<BrokerRecord> {
    let mut partitions = BTreeMap::new();
    for topic in topics {
        // The broker keeps this answer, so the role works with the number that is compared here.
        partitions.insert(topic.clone(), broker.partitions(topic).await?);
    }
    let found = BrokerState { partitions, ..broker.identify(&[]).await? };
    let state = &found;
    let record = transaction("record the broker", connection, async |connection: &mut Connection| {
        broker_identity::insert(connection, &state.identity, by).await?;
        let broker = broker_identity::hold(connection).await?;
        if broker.as_ref().is_some_and(|broker| broker.identity == state.identity) {
            broker_identity::insert_topics(connection, &state.partitions, by).await?;
        }
        Ok(BrokerRecord { broker, topics: broker_identity::topics(connection).await? })
    })
    .await?;
    record.check(config, &found)?;
    Ok(record)
}

/// Compares broker and record while a role runs, and stops the role at a difference.
pub struct BrokerWatch {
    stop: Stop,
    task: AbortOnDropHandle<Option<BrokerMismatch>>,
}

impl BrokerWatch {
    /// Starts to watch. Run the role with the returned context, which the watch can stop.
    pub fn start(context: &Context, broker: SharedBroker, record: BrokerRecord) -> (Context, Self) {
        let watched = Context { stop: context.stop.child(), ..context.clone() };
        let task = tokio::spawn(watch(watched.clone(), broker, record));
        (watched.clone(), Self { stop: watched.stop, task: AbortOnDropHandle::new(task) })
    }

    /// Ends the watch. Fails if it stopped the role.
    pub async fn end(self) -> anyhow::Result<()> {
        self.stop.request();
        match self.task.await {
            Ok(Some(mismatch)) => Err(mismatch.into()),
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

async fn watch(context: Context, broker: SharedBroker, record: BrokerRecord) -> Option<BrokerMismatch> {
    loop {
        let compared = tokio::select! {
            compared = async {
                tokio::time::sleep(CHECK_INTERVAL).await;
                compare(&context, &broker, &record).await
            } => compared,
            () = context.stop.requested() => return None,
        };
        match compared {
            Ok(None) => {}
            Ok(Some(mismatch)) => {
                tracing::error!("stopping: {mismatch}");
                context.health.set_ready(false);
                context.stop.request();
                return Some(mismatch);
            }
            // The role itself reports an outage of the database or the broker.
            Err(error) => tracing::debug!("cannot compare the broker with its record: {error:#}"),
        }
    }
}

async fn compare(
    context: &Context,
    broker: &SharedBroker,
    record: &BrokerRecord,
) -> anyhow::Result<Option<BrokerMismatch>> {
    let config = &context.config;
    let mut connection = repository::connect(&config.database, "broker-watch").await?;
    let now = broker_identity::read(&mut connection).await?;
    drop(connection);
    if now.map(|now| now.generation) != record.generation() {
        return Ok(Some(BrokerMismatch::Switched));
    }
    let found = broker.identify(&record.topic_names()).await?;
    Ok(record.check(config, &found).err())
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::config::{self, Overrides};

    fn identity(kind: BrokerKind, cluster_id: &str) -> BrokerIdentity {
        BrokerIdentity { kind, cluster_id: cluster_id.to_owned() }
    }

    fn record() -> BrokerRecord {
        let broker = RecordedBroker {
            generation: 1,
            identity: identity(BrokerKind::Kafka, "first"),
            moved_from: None,
            recorded_at: Utc::now(),
            recorded_by: "relay host-1".into(),
        };
        let topic = RecordedTopic { topic: "t".into(), partitions: 12, partitions_before: None };
        BrokerRecord { broker: Some(broker), topics: vec![topic] }
    }

    fn state(identity: BrokerIdentity, partitions: &[(&str, i32)]) -> BrokerState {
        let partitions = partitions.iter().map(|(topic, count)| ((*topic).to_owned(), *count)).collect();
        BrokerState { identity, partitions }
    }

    #[test]
    fn another_kind_cluster_or_number_of_partitions_is_refused() {
        let config = config::load(None, std::iter::empty(), &Overrides::new()).unwrap();
        let refusal = |found: BrokerState| record().check(&config, &found).map_err(|error| error.to_string());
        let same = identity(BrokerKind::Kafka, "first");
        assert_eq!(refusal(state(same.clone(), &[("t", 12), ("other", 3)])), Ok(()));
        // A topic that is missing is reported by its users.
        assert_eq!(refusal(state(same.clone(), &[])), Ok(()));
        let more = refusal(state(same.clone(), &[("t", 24)])).unwrap_err();
        assert!(more.contains("has 24 partitions, but the database records 12"), "{more}");
        assert!(refusal(state(same, &[("t", 6)])).is_err());
        let other = refusal(state(identity(BrokerKind::Kafka, "second"), &[("t", 12)])).unwrap_err();
        assert!(other.contains("the broker kafka cluster first (recorded by relay host-1"), "{other}");
        let kind = record().check_kind(&config).unwrap_err().to_string();
        assert!(kind.contains("but broker.kind is postgres; configure the recorded broker"), "{kind}");
        assert!(BrokerRecord::default().check_kind(&config).is_ok());
    }
}
