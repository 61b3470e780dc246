//! Quotas of a real Kafka on the client id: nothing is published twice, memory stays bounded, and records flow at about the
//! allowed rate. The imposed waits are longer than `broker.kafka.request_timeout` in these tests.

use std::time::{Duration, Instant};

use ledger::broker::{self, SharedBroker, TopicSpec};
use tokio::time::sleep;
use uuid::Uuid;

use crate::support::{binary::Binary, own_kafka::OwnKafka, postgres::TestDatabase};

const CONFIGS: &str = "kafka.admin.ConfigCommand";
const CLIENT_ID: &str = "limited";
const PARTITIONS: i32 = 4;
const ROWS: i64 = 20_000;
const VALUE_BYTES: usize = 4_000;
/// The allowed bytes in a second. A request of the largest size then waits for longer than [`REQUEST_TIMEOUT`].
const QUOTA: usize = 200_000;
/// Long enough that no request times out only because the machine is busy: it would be sent again.
const REQUEST_TIMEOUT: &str = "4s";
/// The time over which the broker averages, at most. It allows the traffic of this time before it throttles.
const BURST: Duration = Duration::from_secs(11);
/// The largest produce request.
const REQUEST_BYTES_MAX: usize = 900_000;
/// The memory that the relay may use in addition to its memory at rest. The backlog is larger.
const RELAY_MEMORY_MAX: u64 = 64 << 20;
const DRAIN_LIMIT: Duration = Duration::from_secs(180);

async fn start_kafka() -> Option<OwnKafka> {
    OwnKafka::start_with(&["--set", "quota.window.num=11", "--set", "quota.window.size.seconds=1"]).await
}

/// Changes the quota of the client id: `--add-config name=value`, or `--delete-config name`.
async fn change_quota(kafka: &OwnKafka, change: &str, quota: &str) {
    let client = ["--alter", "--entity-type", "clients", "--entity-name", CLIENT_ID];
    kafka.tool(CONFIGS, &[&client[..], &[change, quota]].concat()).await;
}

async fn connect(database: &TestDatabase, kafka: &OwnKafka, client_id: &str) -> SharedBroker {
    let address = kafka.address.to_string();
    let config = database.config_with(&[
        ("broker.kind", "kafka"),
        ("broker.kafka.bootstrap_servers", &address),
        ("broker.kafka.client_id", client_id),
        ("broker.kafka.request_timeout", REQUEST_TIMEOUT),
        ("broker.kafka.compression", "none"),
    ]);
    broker::connect(&config, database.pool()).await.expect("Kafka")
}

/// Returns the number of records in all partitions.
async fn records(broker: &SharedBroker, topic: &str) -> i64 {
    let mut sum = 0;
    for partition in 0..PARTITIONS {
        sum += broker.offset_range(topic, partition).await.expect("a range").latest;
    }
    sum
}

/// Fills the outbox with rows of 32 keys, one for each lane.
async fn fill_outbox(database: &TestDatabase, topic: &str) {
    let sql = format!(
        "INSERT INTO outbox (lane, topic, key, value, event_id, event_type)
         SELECT n % 32, '{topic}', convert_to('key-' || n % 32, 'UTF8'),
                convert_to(rpad(n::text, {VALUE_BYTES}, 'x'), 'UTF8'), gen_random_uuid(), 'Test.v1'
         FROM generate_series(1, {ROWS}) AS n"
    );
    database.client().await.batch_execute(&sql).await.expect("inserted");
}

/// Returns the memory of a process in bytes: the current one (`VmRSS`) or the peak (`VmHWM`).
fn memory(process_id: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with(field)).expect("a field");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib << 10
}

fn start_relay(database: &TestDatabase, kafka: &OwnKafka) -> Binary {
    let mut relay = Binary::start(
        &["relay"],
        &[
            ("LEDGER_DATABASE__URL", database.url.as_str()),
            ("LEDGER_ADMIN__LISTEN", "off"),
            ("LEDGER_BROKER__KIND", "kafka"),
            ("LEDGER_BROKER__KAFKA__BOOTSTRAP_SERVERS", &kafka.address.to_string()),
            ("LEDGER_BROKER__KAFKA__CLIENT_ID", CLIENT_ID),
            ("LEDGER_BROKER__KAFKA__REQUEST_TIMEOUT", REQUEST_TIMEOUT),
            ("LEDGER_BROKER__KAFKA__COMPRESSION", "none"),
        ],
    );
    relay.line_with("started");
    relay
}

/// Seen to fail without the wait: the next request timed out while the broker did not read, and was sent again on a new
/// connection, beyond the quota.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_quota_slows_the_relay_down_and_publishes_nothing_twice() {
    let Some(kafka) = start_kafka().await else { return };
    let database = TestDatabase::new().await;
    let unlimited = connect(&database, &kafka, "unlimited").await;
    let topic = format!("test-{}", Uuid::new_v4().simple());
    unlimited.ensure_topics(&[TopicSpec::new(&topic, PARTITIONS)], true).await.expect("created");
    change_quota(&kafka, "--add-config", &format!("producer_byte_rate={QUOTA}")).await;

    let relay = start_relay(&database, &kafka);
    let at_rest = memory(relay.process_id(), "VmRSS");
    fill_outbox(&database, &topic).await;
    let started = Instant::now();
    sleep(Duration::from_secs(15)).await;
    let published = usize::try_from(records(&unlimited, &topic).await).expect("a count") * VALUE_BYTES;
    let seconds = (started.elapsed() + BURST).as_secs_f64();
    let in_flight = REQUEST_BYTES_MAX * usize::try_from(PARTITIONS).expect("few");
    let allowed = QUOTA as f64 * seconds;
    assert!((published as f64) < allowed * 1.3 + in_flight as f64, "{published} bytes in {seconds} s");
    assert!(published as f64 > allowed * 0.4, "{published} bytes in {seconds} s");
    let grown = memory(relay.process_id(), "VmHWM").saturating_sub(at_rest);
    assert!(grown < RELAY_MEMORY_MAX, "the relay grew by {} MiB", grown >> 20);

    change_quota(&kafka, "--delete-config", "producer_byte_rate").await;
    let deadline = Instant::now() + DRAIN_LIMIT;
    while database.value("SELECT count(*) FROM outbox").await != "0" {
        assert!(Instant::now() < deadline, "the outbox is not drained");
        sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(records(&unlimited, &topic).await, ROWS, "records, one for each row");
    relay.stop();
}

/// Seen to fail without the wait: a fetch on a throttled connection ran into its time limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_quota_slows_fetches_down_and_fails_none() {
    let Some(kafka) = start_kafka().await else { return };
    let database = TestDatabase::new().await;
    let unlimited = connect(&database, &kafka, "unlimited").await;
    let topic = format!("test-{}", Uuid::new_v4().simple());
    unlimited.ensure_topics(&[TopicSpec::new(&topic, 1)], true).await.expect("created");
    let record = broker::OutgoingRecord {
        key: None,
        value: Some(vec![b'x'; VALUE_BYTES].into()),
        headers: ledger::event::Headers::default(),
        timestamp: chrono::Utc::now(),
    };
    let batch = vec![record; REQUEST_BYTES_MAX / (VALUE_BYTES + 100)];
    for _ in 0..8 {
        unlimited.produce(&topic, 0, batch.clone()).await.expect("published");
    }
    change_quota(&kafka, "--add-config", &format!("consumer_byte_rate={QUOTA}")).await;
    let limited = connect(&database, &kafka, CLIENT_ID).await;
    let end = limited.offset_range(&topic, 0).await.expect("a range").latest;
    let (started, mut next, mut fetches) = (Instant::now(), 0, 0_usize);
    while next < end {
        let fetched = limited.fetch(&topic, 0, next, 1 << 21, Duration::from_millis(100)).await;
        next = fetched.expect("a fetch waits for the quota").next_offset;
        fetches += 1;
    }
    let (elapsed, bytes) = (started.elapsed(), usize::try_from(end).expect("a count") * VALUE_BYTES);
    let fastest = Duration::from_secs_f64(bytes as f64 / QUOTA as f64).saturating_sub(BURST * 2);
    assert!(elapsed > fastest && elapsed < fastest * 6, "{bytes} bytes in {elapsed:?}");
    assert!(fetches <= 40, "{fetches} fetches for {bytes} bytes");
}
