//! The checks of `Boot` at the start of a role, and those of `BrokerWatch` while it runs: the product's own functions.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use ledger::{
    broker::{BrokerIdentity, BrokerState, TopicSpec, TopicState, check_topic},
    config::{self, BrokerKind, Config, Overrides},
    repository::broker_identity::{RecordedBroker, RecordedTopic},
    runtime::BrokerRecord,
};

use super::scenario::Guards;

const TOPIC: &str = "transactions.v1";

static CONFIG: LazyLock<Config> =
    LazyLock::new(|| config::load(None, std::iter::empty(), &Overrides::new()).expect("defaults"));
static RECORD: LazyLock<BrokerRecord> = LazyLock::new(|| {
    let broker = RecordedBroker {
        generation: 1,
        identity: identity(false),
        moved_from: None,
        recorded_at: DateTime::<Utc>::UNIX_EPOCH,
        recorded_by: "relay".into(),
    };
    let topic = RecordedTopic { topic: TOPIC.into(), partitions: 1, partitions_before: None };
    BrokerRecord { broker: Some(broker), topics: vec![topic] }
});

fn identity(is_foreign: bool) -> BrokerIdentity {
    let kind = if is_foreign { BrokerKind::Postgres } else { BrokerKind::Kafka };
    BrokerIdentity { kind, cluster_id: if is_foreign { "" } else { "kafka" }.into() }
}

/// Returns whether a role may run. `is_foreign`: it is configured with another broker than the recorded one.
pub fn pass(guards: Guards, partitions: i32, is_foreign: bool, is_compacted: bool) -> bool {
    let Guards { broker_identity, partition_count, topic_settings, .. } = guards;
    let partitions = if partition_count { partitions } else { 1 };
    let found = BrokerState {
        identity: identity(is_foreign && broker_identity),
        partitions: [(TOPIC.to_owned(), partitions)].into(),
    };
    let policy = if is_compacted { "compact" } else { "delete" };
    let is_refused = check_topic(&TopicSpec::new(TOPIC, 1), &topic_state(policy)).refusal.is_some();
    RECORD.check(&CONFIG, &found).is_ok() && !(topic_settings && is_refused)
}

fn topic_state(cleanup_policy: &str) -> TopicState {
    TopicState {
        partitions: 1,
        replication_factor: None,
        min_insync_replicas: None,
        retention: None,
        cleanup_policy: Some(cleanup_policy.to_owned()),
        message_bytes_max: None,
        unclean_election: None,
        brokers: None,
        hides_settings: false,
    }
}
