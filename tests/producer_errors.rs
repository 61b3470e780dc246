//! The errors of a real Kafka for a producer, by kind:
//!
//! - A transient error is retried for ever.
//! - An error about one record dead-letters that record alone.
//! - A permanent error stops the relay with a line that names the cause.

use chrono::{TimeDelta, Utc};
use ledger::{
    broker::{self, BrokerError, OutgoingRecord},
    event::Headers,
};

use crate::support::{
    DEADLINE,
    binary::Binary,
    eventually,
    kafka::Kafka,
    postgres::TestDatabase,
    relay_stage::{Outbox, OutboxRow, RelayStage},
};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

fn name() -> String {
    format!("test-{}", uuid::Uuid::new_v4().simple())
}

/// Creates a topic of one partition with a setting, by Kafka's own tool.
async fn topic_with(kafka: &Kafka, setting: &str) -> String {
    let topic = name();
    kafka.tool(TOPICS, &["--create", "--topic", &topic, "--partitions", "1", "--config", setting]).await;
    topic
}

/// Bytes that no compression shrinks.
fn random_bytes(count: usize) -> Vec<u8> {
    (0..count.div_ceil(16)).flat_map(|_| *uuid::Uuid::new_v4().as_bytes()).collect()
}

fn record(key: Option<&str>, bytes: usize) -> OutgoingRecord {
    OutgoingRecord {
        key: key.map(|key| key.to_owned().into()),
        value: Some(random_bytes(bytes).into()),
        headers: Headers::default(),
        timestamp: Utc::now(),
    }
}

#[tokio::test]
async fn kafka_errors_are_classified_by_their_remedy() {
    let Some(kafka) = Kafka::get() else { return };
    let (small, compacted, recent) = tokio::join!(
        topic_with(kafka, "max.message.bytes=2000"),
        topic_with(kafka, "cleanup.policy=compact"),
        topic_with(kafka, "message.timestamp.before.max.ms=3600000"),
    );
    let stage = RelayStage::new(&kafka.overrides()).await;
    let produce = async |topic: &str, record| stage.broker.produce(topic, 0, vec![record]).await.err();

    let error = produce(&small, record(Some("k"), 5_000)).await;
    assert!(matches!(error, Some(BrokerError::RecordTooLarge)), "{error:?}");
    let error = produce(&compacted, record(None, 10)).await;
    assert!(matches!(error, Some(BrokerError::RecordInvalid { .. })), "{error:?}");
    let mut old = record(Some("k"), 10);
    old.timestamp -= TimeDelta::days(700);
    let error = produce(&recent, old).await.expect("refused");
    assert!(error.is_transient() && error.to_string().contains("clock"), "{error}");
    // One bad record among good ones is dead-lettered alone.
    for number in 0..20 {
        let is_bad = number == 7;
        let large = OutboxRow::new(&small, Some("k"), random_bytes(if is_bad { 5_000 } else { 10 }));
        let keyless = OutboxRow::new(&compacted, (!is_bad).then_some("k"), random_bytes(10));
        // Imported history: the event is as old as its transaction.
        // Seen to fail when the record carried the time of the event.
        let mut old = OutboxRow::new(&recent, Some("k"), random_bytes(10));
        old.created_at -= TimeDelta::days(700);
        stage.outbox.insert(&[large, keyless, old]).await;
    }
    stage.drain().await;
    for (topic, published) in [(&small, 19), (&compacted, 19), (&recent, 20)] {
        assert_eq!(stage.broker.offset_range(topic, 0).await.expect("a range").latest, published);
    }
    let dead_letters = stage.outbox.dead_letters().await;
    assert!(
        dead_letters.contains("record_too_large the broker refuses a record as too large"),
        "{dead_letters}"
    );
    assert!(
        dead_letters.contains("record_invalid the broker refuses a record permanently: InvalidRecord"),
        "{dead_letters}"
    );
}

#[tokio::test]
async fn a_topic_that_refuses_every_record_stops_the_relay_and_keeps_its_rows() {
    let Some(kafka) = Kafka::get() else { return };
    let compacted = topic_with(kafka, "cleanup.policy=compact").await;
    let stage = RelayStage::new(&kafka.overrides()).await;
    stage.outbox.insert(&vec![OutboxRow::new(&compacted, None, random_bytes(10)); 30]).await;
    // Seen to fail without a bound on consecutive refusals: the whole outbox became dead letters.
    let error = stage.drain_until_refused().await;
    assert!(error.contains("21 records of") && error.contains(&compacted), "{error}");
    assert_eq!((stage.outbox.rows().await.as_str(), stage.outbox.dead_letters().await.as_str()), ("30", ""));
}

/// Starts a relay process with a configuration.
fn relay(outbox: &Outbox, settings: &[(&str, &str)]) -> Binary {
    let mut environment = vec![
        ("LEDGER_DATABASE__URL".to_owned(), outbox.0.url.clone()),
        ("LEDGER_ADMIN__LISTEN".to_owned(), "off".to_owned()),
    ];
    for (key, value) in settings {
        environment
            .push((format!("LEDGER_{}", key.to_ascii_uppercase().replace('.', "__")), (*value).to_owned()));
    }
    let pairs: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Binary::start(&["relay"], &pairs)
}

/// Asserts that the relay ends with exit code 1 and one error line that contains `part`.
fn fails_with(relay: Binary, part: &str) {
    let (status, stderr) = relay.ended_within(DEADLINE);
    assert_eq!(status.code(), Some(1), "{stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    assert!(errors[0].contains(part), "{}", errors[0]);
}

#[tokio::test]
async fn a_deleted_topic_stops_the_relay_and_keeps_the_rows() {
    let Some(kafka) = Kafka::get() else { return };
    let outbox = Outbox(TestDatabase::new().await);
    let topic = topic_with(kafka, "retention.ms=3600000").await;
    let mut running = relay(&outbox, &kafka.overrides());
    running.line_with("started role=\"relay\"");
    outbox.insert(&[OutboxRow::new(&topic, Some("k"), random_bytes(10))]).await;
    eventually("the row is published", async || outbox.rows().await == "0").await;
    kafka.tool(TOPICS, &["--delete", "--topic", &topic]).await;
    outbox.insert(&[OutboxRow::new(&topic, Some("k"), random_bytes(10))]).await;
    fails_with(running, &format!("topic {topic} does not exist"));
    assert_eq!(outbox.rows().await, "1");
}

#[tokio::test]
async fn a_user_without_write_permission_stops_the_relay_with_one_error_line() {
    let Some(kafka) = Kafka::secured() else { return };
    let outbox = Outbox(TestDatabase::new().await);
    let administrator = outbox.0.config_with(&kafka.overrides());
    let broker = broker::connect(&administrator, outbox.0.pool()).await.expect("Kafka");
    broker.ensure_topics(&broker::topic_specs(&administrator), true).await.expect("created");
    let topic = topic_with(kafka, "retention.ms=3600000").await;
    let (address, password) = (
        kafka.listener("SASL_PLAINTEXT"),
        std::fs::read_to_string(kafka.secure_file("guest-password")).expect("read"),
    );
    let guest = [
        ("broker.kind", "kafka"),
        ("broker.create_topics", "false"),
        ("broker.kafka.bootstrap_servers", address.as_str()),
        ("broker.kafka.sasl_mechanism", "scram-sha-256"),
        ("broker.kafka.sasl_username", "guest"),
        ("broker.kafka.sasl_password", password.as_str()),
    ];
    fails_with(relay(&outbox, &guest), "topic transactions.v1 cannot be described: TopicAuthorizationFailed");

    let allow = ["--add", "--allow-principal", "User:guest", "--operation", "Describe", "--topic", "*"];
    kafka.tool("org.apache.kafka.tools.AclCommand", &allow).await;
    outbox.insert(&[OutboxRow::new(&topic, Some("k"), random_bytes(10))]).await;
    let running = relay(&outbox, &guest);
    fails_with(running, &format!("the broker refuses: TopicAuthorizationFailed for topic {topic}"));
    assert_eq!(outbox.rows().await, "1");
}
