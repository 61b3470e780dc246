//! The relay on a real PostgreSQL and with both brokers: nothing is lost and accounts stay in order, also across crashes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use ledger::{
    broker::{
        self, Broker, BrokerError, BrokerState, Fetched, LogOffset, OffsetRange, OutgoingRecord,
        PostgresBroker, SharedBroker, TopicSpec, TopicState,
    },
    event::{lane_of, partition_of},
    relay::{self, Relay},
    repository::{
        self, RepositoryError, leases,
        outbox::{self, OutboxRowId},
    },
    runtime::{Context, Lease, LeaseGroup},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{DEADLINE, binary::Binary, eventually, kafka::Kafka, postgres::TestDatabase};

const PARTITIONS: i32 = 6;
const ALL_LANES: i16 = 32;

/// A database, a broker and a topic for one test.
struct Stage {
    database: TestDatabase,
    broker: SharedBroker,
    topic: String,
    overrides: Vec<(&'static str, String)>,
}

impl Stage {
    async fn new(overrides: &[(&'static str, &str)]) -> Self {
        let database = TestDatabase::new().await;
        let overrides: Vec<(&'static str, String)> =
            overrides.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let pairs: Vec<(&str, &str)> = overrides.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let config = database.config_with(&pairs);
        let broker = broker::connect(&config, database.pool()).await.expect("a broker");
        let topic = format!("test-{}", Uuid::new_v4().simple());
        let spec = TopicSpec::new(topic.clone(), PARTITIONS);
        broker.ensure_topics(&[spec], true).await.expect("a topic");
        Self { database, broker, topic, overrides }
    }

    /// Returns a stage for each broker, with short leases.
    async fn each() -> Vec<Self> {
        Self::each_with(&[]).await
    }

    async fn each_with(more: &[(&'static str, &'static str)]) -> Vec<Self> {
        let settings = [&[("relay.lease_ttl", "1s")], more].concat();
        let mut stages = vec![Self::new(&settings).await];
        if let Some(kafka) = Kafka::get() {
            let mut overrides = kafka.overrides().to_vec();
            overrides.extend(settings);
            stages.push(Self::new(&overrides).await);
        }
        stages
    }

    fn context(&self) -> Context {
        let pairs: Vec<(&str, &str)> =
            self.overrides.iter().map(|(key, value)| (*key, value.as_str())).collect();
        self.database.context_with(&pairs)
    }

    /// Starts the real binary on this stage.
    fn binary(&self) -> Binary {
        let mut environment = vec![
            ("LEDGER_DATABASE__URL".to_owned(), self.database.url.clone()),
            ("LEDGER_ADMIN__LISTEN".to_owned(), "off".to_owned()),
        ];
        for (key, value) in &self.overrides {
            let name = key.to_ascii_uppercase().replace('.', "__");
            environment.push((format!("LEDGER_{name}"), value.clone()));
        }
        let pairs: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut binary = Binary::start(&["relay"], &pairs);
        binary.line_with("started role=\"relay\"");
        binary
    }

    /// Inserts rows of `accounts` accounts in turn, each with `each` events numbered from `first`.
    async fn seed(&self, accounts: usize, first: i64, each: i64) {
        let client = self.database.client().await;
        let events: Vec<(String, i64)> = (first..first + each)
            .flat_map(|sequence| (0..accounts).map(move |account| (format!("acct-{account}"), sequence)))
            .collect();
        for part in events.chunks(5_000) {
            insert(&client, &self.topic, part).await;
        }
    }

    async fn outbox_is_empty(&self) -> bool {
        self.database.value("SELECT count(*) FROM outbox").await == "0"
    }

    async fn drained(&self) {
        eventually("the outbox is empty", async || self.outbox_is_empty().await).await;
    }

    /// Returns the number of records in the topic.
    async fn published(&self) -> i64 {
        let mut sum = 0;
        for partition in 0..PARTITIONS {
            sum += self.broker.offset_range(&self.topic, partition).await.expect("a range").latest;
        }
        sum
    }

    /// Returns all events of the topic as account and number, partition by partition.
    async fn events(&self) -> Vec<(String, i64)> {
        let mut events = Vec::new();
        for partition in 0..PARTITIONS {
            let end = self.broker.offset_range(&self.topic, partition).await.expect("a range").latest;
            let mut next = 0;
            while next < end {
                let wait = Duration::from_secs(1);
                let found =
                    self.broker.fetch(&self.topic, partition, next, 1 << 22, wait).await.expect("read");
                for record in found.records {
                    next = record.offset + 1;
                    let value: Value = serde_json::from_slice(&record.value.expect("a value")).expect("JSON");
                    let account = value["account_id"].as_str().expect("an account").to_owned();
                    assert_eq!(record.key.as_deref(), Some(account.as_bytes()));
                    assert_eq!(partition, partition_of(account.as_bytes(), PARTITIONS));
                    events.push((account, value["account_seq"].as_i64().expect("a number")));
                }
            }
        }
        events
    }

    /// Checks that every event is there and that the first occurrences of each account are in order. Returns the number
    /// of duplicates.
    async fn holds_all_in_order(&self, accounts: usize, each: i64) -> usize {
        let events = self.events().await;
        let mut seen: BTreeMap<&str, i64> = BTreeMap::new();
        let mut again = 0;
        for (account, number) in &events {
            let last = seen.entry(account).or_default();
            if *number > *last {
                assert_eq!(*number, *last + 1, "{account} has a gap");
                *last = *number;
            } else {
                again += 1;
            }
        }
        assert_eq!(seen.len(), accounts);
        assert!(seen.values().all(|last| *last == each), "{seen:?}");
        again
    }
}

async fn insert(client: &tokio_postgres::Client, topic: &str, events: &[(String, i64)]) {
    let lanes: Vec<i16> = events.iter().map(|(account, _)| lane_of(account.as_bytes())).collect();
    let keys: Vec<Vec<u8>> = events.iter().map(|(account, _)| account.clone().into_bytes()).collect();
    let values: Vec<Vec<u8>> = events
        .iter()
        .map(|(account, number)| {
            json!({"account_id": account, "account_seq": number}).to_string().into_bytes()
        })
        .collect();
    client
        .execute(
            "INSERT INTO outbox (lane, topic, key, value, event_id, event_type, traceparent)
             SELECT lane, $1, key, value, gen_random_uuid(), 'Test.v1', '00-aa-bb-01'
             FROM unnest($2::smallint[], $3::bytea[], $4::bytea[]) AS t (lane, key, value)",
            &[&topic, &lanes, &keys, &values],
        )
        .await
        .expect("inserted");
}

/// Starts the role in this process.
fn start(context: &Context) -> tokio::task::JoinHandle<anyhow::Result<()>> {
    tokio::spawn(relay::run(context.clone()))
}

async fn stop(context: &Context, running: tokio::task::JoinHandle<anyhow::Result<()>>) {
    let asked = Instant::now();
    context.stop.request();
    running.await.expect("no panic").expect("a clean stop");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_published_once_in_order_with_its_headers() {
    for stage in Stage::each().await {
        stage.seed(50, 1, 60).await;
        let context = stage.context();
        let running = start(&context);
        stage.drained().await;
        // A relay that is idle finds later rows too.
        stage.seed(50, 61, 2).await;
        stage.drained().await;
        stop(&context, running).await;
        assert_eq!(stage.holds_all_in_order(50, 62).await, 0, "nothing crashed, so there are no duplicates");
        let partition = partition_of(b"acct-0", PARTITIONS);
        let found =
            stage.broker.fetch(&stage.topic, partition, 0, 1 << 20, Duration::ZERO).await.expect("read");
        let headers = &found.records[0].headers;
        assert_eq!(headers.attribute("ce_type"), Some("Test.v1"));
        assert_eq!(headers.attribute("traceparent"), Some("00-aa-bb-01"));
        assert!(headers.attribute("ce_id").is_some_and(|id| Uuid::parse_str(id).is_ok()));
        let free = "SELECT count(*) FROM leases WHERE name LIKE 'relay/%' AND owner IS NULL";
        assert_eq!(stage.database.value(free).await, "32", "released at stop");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_killed_repeatedly_loses_nothing_and_keeps_the_order() {
    for stage in Stage::each().await {
        stage.seed(100, 1, 200).await;
        // Seen to fail when rows were removed before they were acknowledged.
        for part in 1..=3 {
            let relay = stage.binary();
            eventually("some are published", async || stage.published().await > part * 3_000).await;
            relay.kill();
        }
        assert!(!stage.outbox_is_empty().await, "killed in the middle");
        let relay = stage.binary();
        stage.drained().await;
        relay.stop();
        stage.holds_all_in_order(100, 200).await;
    }
}

/// Batches are small, so that some are in flight whenever the relay freezes.
///
/// Seen to fail when rows were removed as they were read, 20 ms before they were sent. Without that pause the freeze met
/// such rows in one run of three.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_was_frozen_past_its_leases_does_no_harm_when_it_continues() {
    for stage in Stage::each_with(&[("relay.batch_size_max", "200")]).await {
        stage.seed(100, 1, 150).await;
        let frozen = stage.binary();
        eventually("it publishes", async || stage.published().await > 1_000).await;
        frozen.signal(Signal::SIGSTOP);
        let before = stage.published().await;
        let rival = stage.binary();
        eventually("the rival takes over", async || stage.published().await > before + 2_000).await;
        frozen.signal(Signal::SIGCONT);
        stage.seed(100, 151, 20).await;
        stage.drained().await;
        rival.stop();
        frozen.stop();
        stage.holds_all_in_order(100, 170).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_share_the_lanes_and_one_takes_over_from_the_other() {
    let stage = Stage::new(&[("relay.lease_ttl", "1s")]).await;
    let (first, second) = (stage.context(), stage.context());
    let running = [start(&first), start(&second)];
    let sharing =
        "SELECT count(*) FROM (SELECT owner FROM leases WHERE name LIKE 'relay/%' AND owner IS NOT NULL
                   GROUP BY owner HAVING count(*) = 16) AS even";
    eventually("16 lanes each", async || stage.database.value(sharing).await == "2").await;
    stage.seed(64, 1, 20).await;
    stage.drained().await;
    let [first_running, second_running] = running;
    // Killed, so it releases nothing.
    first_running.abort();
    let _ = first_running.await;
    stage.seed(64, 21, 20).await;
    stage.drained().await;
    stop(&second, second_running).await;
    stage.holds_all_in_order(64, 40).await;
}

/// Seen to fail with a cursor, and with scan floors that rise while a transaction is open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_commits_late_with_a_lower_id_is_published() {
    let stage = Stage::new(&[]).await;
    let context = stage.context();
    let running = start(&context);
    let mut late = stage.database.client().await;
    let transaction = late.transaction().await.expect("begun");
    insert(transaction.client(), &stage.topic, &[("acct-0".into(), 1)]).await;
    // This row has the same lane, a higher id and another account. It is published while the lower id is not committed.
    // A cursor would then skip the lower id.
    let same_lane =
        (1..).find(|n| lane_of(format!("acct-{n}").as_bytes()) == lane_of(b"acct-0")).expect("one");
    let other = stage.database.client().await;
    insert(&other, &stage.topic, &[(format!("acct-{same_lane}"), 1)]).await;
    eventually("the later row is published", async || stage.published().await == 1).await;
    // Enough rows that the relay raises its scan floors several times. If it ignored the open transactions, the late row
    // would stay for ever.
    let mut published = 1;
    let enough = Instant::now() + Duration::from_secs(3);
    while Instant::now() < enough {
        published += 1;
        insert(&other, &stage.topic, &[(format!("acct-{same_lane}"), published)]).await;
        eventually("the next row is published", async || stage.published().await == published).await;
    }
    transaction.commit().await.expect("committed");
    stage.drained().await;
    assert_eq!(stage.published().await, published + 1);
    stop(&context, running).await;
}

/// Seen to fail when the rows removed by range were not counted.
#[tokio::test]
async fn a_row_that_was_not_published_is_not_removed_with_its_lane() {
    let stage = Stage::new(&[]).await;
    let client = stage.database.client().await;
    let events: Vec<(String, i64)> = (1..=3).map(|number| ("acct-0".to_owned(), number)).collect();
    insert(&client, &stage.topic, &events).await;
    let lane = lane_of(b"acct-0");
    let names = names(&client).await;
    let (ends, all) = ([names[0], names[2]], names);
    let whole = BTreeSet::from([lane]);
    let pool = stage.database.pool();
    let mut connection = repository::pooled(&pool).await.expect("a connection");
    let refused =
        outbox::remove(&mut connection, &[], &ends, &whole, &[]).await.expect_err("one was not published");
    assert!(matches!(refused, RepositoryError::OutboxDiffers { expected: 2, found: 3 }), "{refused}");
    assert_eq!(stage.database.value("SELECT count(*) FROM outbox").await, "3");
    outbox::remove(&mut connection, &[], &ends, &BTreeSet::new(), &[]).await.expect("removed one by one");
    assert_eq!(stage.database.value("SELECT count(*) FROM outbox").await, "1");
    insert(&client, &stage.topic, &events).await;
    let refused = outbox::remove(&mut connection, &[], &all, &whole, &[]).await.expect_err("two are gone");
    assert!(matches!(refused, RepositoryError::OutboxDiffers { expected: 3, found: 1 }), "{refused}");
    let others = self::names(&client).await.split_off(1);
    outbox::remove(&mut connection, &[], &others, &whole, &[]).await.expect("removed as a range");
    assert_eq!(stage.database.value("SELECT count(*) FROM outbox").await, "1");
}

/// Returns the rows of the outbox, in order.
async fn names(client: &tokio_postgres::Client) -> Vec<OutboxRowId> {
    let rows = client
        .query("SELECT lane, id, event_id::text FROM outbox ORDER BY lane, id", &[])
        .await
        .expect("rows");
    let event = |text: &str| text.parse().expect("a uuid");
    rows.iter()
        .map(|row| OutboxRowId { lane: row.get(0), id: row.get(1), event_id: event(row.get(2)) })
        .collect()
}

/// After a failover that lost the last commits, their ids are drawn again. Seen to fail when rows were removed by lane and
/// id.
#[tokio::test]
async fn another_row_with_the_id_of_a_published_one_stays() {
    let stage = Stage::new(&[]).await;
    let client = stage.database.client().await;
    insert(&client, &stage.topic, &[("acct-0".into(), 1)]).await;
    let published = names(&client).await;
    client.batch_execute("UPDATE outbox SET event_id = gen_random_uuid()").await.expect("another");
    let pool = stage.database.pool();
    let mut connection = repository::pooled(&pool).await.expect("a connection");
    outbox::remove(&mut connection, &[], &published, &BTreeSet::new(), &[]).await.expect("nothing to remove");
    assert_eq!(stage.database.value("SELECT count(*) FROM outbox").await, "1");
    let now = names(&client).await;
    outbox::remove(&mut connection, &[], &now, &BTreeSet::new(), &[]).await.expect("removed");
    assert_eq!(stage.database.value("SELECT count(*) FROM outbox").await, "0");
}

/// A long transaction in another database has written a row. Seen to fail when only rows older than every open
/// transaction of the server were published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transaction_in_another_database_delays_nothing() {
    let stage = Stage::new(&[]).await;
    let elsewhere = TestDatabase::new().await.client().await;
    elsewhere.batch_execute("BEGIN; INSERT INTO accounts VALUES ('a', 'EUR')").await.expect("written");
    let context = stage.context();
    let running = start(&context);
    stage.seed(20, 1, 20).await;
    stage.drained().await;
    stop(&context, running).await;
    stage.holds_all_in_order(20, 20).await;
    elsewhere.batch_execute("COMMIT").await.expect("open until here");
}

#[tokio::test]
async fn a_topic_with_too_few_partitions_is_refused_at_start_in_one_line() {
    let stage = Stage::new(&[]).await;
    let client = stage.database.client().await;
    client
        .batch_execute("INSERT INTO broker_partitions VALUES ('transactions.v1', 0)")
        .await
        .expect("inserted");
    let error = relay::run(stage.context()).await.expect_err("refused");
    let line = format!("{error:#}");
    assert!(line.contains("transactions.v1 has 1 partitions") && !line.contains('\n'), "{line}");
}

/// The PostgreSQL broker, made to fail, hang or refuse.
struct FaultyBroker {
    inner: PostgresBroker,
    failing: Mutex<BTreeSet<i32>>,
    hanging: Mutex<BTreeSet<i32>>,
    released: tokio::sync::Notify,
    refusing: AtomicBool,
    invalid: AtomicBool,
}

/// Values larger than this are refused as too large.
const VALUE_BYTES_MAX: usize = 10_000;

#[async_trait]
impl Broker for FaultyBroker {
    async fn identify(&self, topics: &[String]) -> Result<BrokerState, BrokerError> {
        self.inner.identify(topics).await
    }

    async fn ensure_topics(&self, topics: &[TopicSpec], create: bool) -> Result<(), BrokerError> {
        self.inner.ensure_topics(topics, create).await
    }

    async fn partitions(&self, topic: &str) -> Result<i32, BrokerError> {
        self.inner.partitions(topic).await
    }

    async fn produce(
        &self,
        topic: &str,
        partition: i32,
        records: Vec<OutgoingRecord>,
    ) -> Result<(), BrokerError> {
        if self.refusing.load(Ordering::Relaxed) {
            return Err(BrokerError::Refused { detail: "no permission".into() });
        }
        if self.invalid.load(Ordering::Relaxed) {
            return Err(BrokerError::RecordInvalid { detail: "no such schema".into() });
        }
        if self.hanging.lock().unwrap().contains(&partition) {
            self.released.notified().await;
        }
        if self.failing.lock().unwrap().contains(&partition) {
            return Err(BrokerError::Unavailable { detail: "no leader".into() });
        }
        if records
            .iter()
            .any(|record| record.value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES_MAX))
        {
            return Err(BrokerError::RecordTooLarge);
        }
        self.inner.produce(topic, partition, records).await
    }

    async fn fetch_from(
        &self,
        topic: &str,
        partition: i32,
        from: LogOffset,
        bytes_max: usize,
        wait_max: Duration,
    ) -> Result<Fetched, BrokerError> {
        self.inner.fetch_from(topic, partition, from, bytes_max, wait_max).await
    }

    async fn log_id(&self, topic: &str, partition: i32) -> Result<Option<Uuid>, BrokerError> {
        self.inner.log_id(topic, partition).await
    }

    async fn offset_range(&self, topic: &str, partition: i32) -> Result<OffsetRange, BrokerError> {
        self.inner.offset_range(topic, partition).await
    }

    async fn offset_at(
        &self,
        topic: &str,
        partition: i32,
        moment: chrono::DateTime<chrono::Utc>,
    ) -> Result<i64, BrokerError> {
        self.inner.offset_at(topic, partition, moment).await
    }

    async fn describe_topic(&self, topic: &str) -> Result<Option<TopicState>, BrokerError> {
        self.inner.describe_topic(topic).await
    }

    async fn mirror_positions(&self, _: &str, _: &str, _: &[(i32, i64)]) -> Result<(), BrokerError> {
        Ok(())
    }
}

/// Returns a relay that holds all lanes and publishes to a faulty broker.
async fn on_faulty_broker(stage: &Stage) -> (Arc<FaultyBroker>, Arc<Relay>, LeaseGroup, Vec<Lease>) {
    let broker = Arc::new(FaultyBroker {
        inner: PostgresBroker::new(stage.database.pool()),
        failing: Mutex::default(),
        hanging: Mutex::default(),
        released: tokio::sync::Notify::new(),
        refusing: AtomicBool::new(false),
        invalid: AtomicBool::new(false),
    });
    let context = stage.context();
    let relay = Arc::new(Relay::new(&context, Arc::clone(&broker) as SharedBroker));
    let names = (0..ALL_LANES).map(|lane| format!("relay/lane/{lane}")).collect();
    let group = LeaseGroup::join(&context, "relay", names, context.config.relay.lease_ttl);
    eventually("all lanes are held", async || group.held().len() == 32).await;
    let held = group.held();
    (broker, relay, group, held)
}

/// Runs the relay until it can publish no more rows for now. Returns the number published.
async fn publish_all(relay: &Arc<Relay>, leases: &[Lease]) -> usize {
    let mut published = 0;
    loop {
        let delivered = relay.run_once(leases).await.expect("no refusal");
        published += delivered.published;
        if delivered.published + delivered.dead_lettered == 0 {
            return published;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_fails_delays_only_its_own_keys() {
    let stage = Stage::new(&[("relay.batch_size_max", "100")]).await;
    let (broker, relay, _group, held) = on_faulty_broker(&stage).await;
    broker.failing.lock().unwrap().insert(2);
    // The lanes begin with far more rows of the failing partition than one scan reads.
    let stuck: Vec<String> = (0..)
        .map(|number| format!("stuck-{number}"))
        .filter(|account| partition_of(account.as_bytes(), PARTITIONS) == 2)
        .take(50)
        .collect();
    let client = stage.database.client().await;
    for number in 1..=30 {
        let part: Vec<(String, i64)> = stuck.iter().map(|account| (account.clone(), number)).collect();
        insert(&client, &stage.topic, &part).await;
    }
    stage.seed(60, 1, 10).await;
    let of_others =
        (0..60).filter(|n| partition_of(format!("acct-{n}").as_bytes(), PARTITIONS) != 2).count() * 10;
    let deadline = Instant::now() + DEADLINE;
    let mut published = 0;
    while published < of_others {
        assert!(Instant::now() < deadline, "{published} of {of_others}");
        published += relay.run_once(&held).await.expect("no refusal").published;
    }
    assert_eq!(published, of_others, "none of the failing partition");
    broker.failing.lock().unwrap().clear();
    eventually("the rest follows", async || {
        publish_all(&relay, &held).await;
        stage.outbox_is_empty().await
    })
    .await;
    assert_eq!(stage.holds_all_in_order_of("acct-").await, 600);
    assert_eq!(stage.holds_all_in_order_of("stuck-").await, 1_500);
}

/// More rows than one scan reads. Seen to fail with scans that always start at the head of the lane.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_pause_of_a_partition_does_not_delay_the_rows_behind_its_rows() {
    let stage = Stage::new(&[]).await;
    let (broker, relay, _group, held) = on_faulty_broker(&stage).await;
    let away = partition_of(b"stuck", PARTITIONS);
    broker.failing.lock().unwrap().insert(away);
    let client = stage.database.client().await;
    let stuck: Vec<(String, i64)> = (1..=4_000).map(|number| ("stuck".to_owned(), number)).collect();
    insert(&client, &stage.topic, &stuck).await;
    let is_behind = |account: &String| {
        lane_of(account.as_bytes()) == lane_of(b"stuck")
            && partition_of(account.as_bytes(), PARTITIONS) != away
    };
    let behind = (0..).map(|number| format!("behind-{number}")).find(is_behind).expect("one");
    insert(&client, &stage.topic, &[(behind.clone(), 1)]).await;
    eventually("the row behind them is published", async || {
        relay.run_once(&held).await.expect("no refusal").published == 1
    })
    .await;
    broker.failing.lock().unwrap().clear();
    eventually("the rest follows", async || {
        publish_all(&relay, &held).await;
        stage.outbox_is_empty().await
    })
    .await;
    assert_eq!(stage.holds_all_in_order_of("stuck").await, 4_000);
}

/// Seen to fail when each batch counted from zero: all events of the topic became dead letters, one by one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_accepts_no_record_stops_the_relay_also_when_records_come_one_by_one() {
    let stage = Stage::new(&[]).await;
    let (broker, relay, _group, held) = on_faulty_broker(&stage).await;
    broker.invalid.store(true, Ordering::Relaxed);
    let mut dead_lettered = 0;
    let refusal = loop {
        stage.seed(1, 1, 1).await;
        match relay.run_once(&held).await {
            Ok(delivered) => dead_lettered += delivered.dead_lettered,
            Err(error) => break error.to_string(),
        }
        assert!(dead_lettered <= 20, "{dead_lettered}");
    };
    assert!(refusal.contains("21 records") && refusal.contains("no such schema"), "{refusal}");
    assert_eq!(stage.database.value("SELECT count(*) FROM outbox").await, "1", "the last one stays");
    assert_eq!(stage.database.value("SELECT count(*) FROM dead_letters").await, "20");
}

impl Stage {
    /// Checks that the accounts with that prefix have each event once and in order. Returns the number of events.
    async fn holds_all_in_order_of(&self, prefix: &str) -> usize {
        let mut last: BTreeMap<String, i64> = BTreeMap::new();
        let events = self.events().await;
        let of_prefix: Vec<_> =
            events.into_iter().filter(|(account, _)| account.starts_with(prefix)).collect();
        for (account, number) in &of_prefix {
            let last = last.entry(account.clone()).or_default();
            assert_eq!(*number, *last + 1, "{account}");
            *last = *number;
        }
        of_prefix.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_hangs_does_not_delay_the_batch_and_is_not_overtaken() {
    let stage = Stage::new(&[]).await;
    let (broker, relay, _group, held) = on_faulty_broker(&stage).await;
    broker.hanging.lock().unwrap().insert(4);
    stage.seed(60, 1, 5).await;
    let started = Instant::now();
    publish_all(&relay, &held).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    // Seen to fail when the busy partition was not paused: these rows were sent before, or in parallel with, the first.
    stage.seed(60, 6, 5).await;
    publish_all(&relay, &held).await;
    broker.hanging.lock().unwrap().clear();
    broker.released.notify_waiters();
    eventually("the rest follows", async || {
        publish_all(&relay, &held).await;
        stage.outbox_is_empty().await
    })
    .await;
    assert_eq!(stage.holds_all_in_order(60, 10).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_too_large_becomes_a_dead_letter_and_its_lane_continues() {
    let stage = Stage::new(&[]).await;
    let (_moody, relay, _group, held) = on_faulty_broker(&stage).await;
    stage.seed(3, 1, 40).await;
    let client = stage.database.client().await;
    let huge = "UPDATE outbox SET value = convert_to(repeat('x', 20000), 'UTF8')
                WHERE convert_from(value, 'UTF8')::json ->> 'account_seq' = '17'
                  AND convert_from(key, 'UTF8') = 'acct-1'";
    assert_eq!(client.execute(huge, &[]).await.expect("updated"), 1);
    assert_eq!(publish_all(&relay, &held).await, 119);
    assert!(stage.outbox_is_empty().await);
    let letter = "SELECT concat_ws('|', consumer_group, topic, stage, reason, length(value), attempts, convert_from(key, 'UTF8'))
                  FROM dead_letters";
    let expected = format!("relay|{}|publish|record_too_large|20000|1|acct-1", stage.topic);
    assert_eq!(stage.database.value(letter).await, expected);
    let numbers: Vec<i64> = stage
        .events()
        .await
        .into_iter()
        .filter(|(account, _)| account == "acct-1")
        .map(|(_, number)| number)
        .collect();
    assert_eq!(numbers, (1..=40).filter(|number| *number != 17).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_published_under_a_lost_lease_are_not_removed() {
    let stage = Stage::new(&[]).await;
    let (_moody, relay, _group, held) = on_faulty_broker(&stage).await;
    stage.seed(64, 1, 1).await;
    let lost = lane_of(b"acct-0");
    let client = stage.database.client().await;
    let take =
        format!("UPDATE leases SET owner = 'rival', epoch = epoch + 1 WHERE name = 'relay/lane/{lost}'");
    client.batch_execute(&take).await.expect("taken");
    // Seen to fail when rows were removed without checking the leases.
    relay.run_once(&held).await.expect("no refusal");
    let left = stage.database.value("SELECT string_agg(DISTINCT lane::text, ',') FROM outbox").await;
    assert_eq!(left, lost.to_string(), "only the rows of the lost lane are left");
    let mut connection = stage.database.connection().await;
    assert!(leases::hold(&mut connection, &held.iter().collect::<Vec<_>>()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permanent_refusal_is_reported_and_loses_nothing() {
    let stage = Stage::new(&[]).await;
    let (broker, relay, _group, held) = on_faulty_broker(&stage).await;
    stage.seed(3, 1, 3).await;
    broker.refusing.store(true, Ordering::Relaxed);
    let error = relay.run_once(&held).await.expect_err("refused");
    assert!(error.to_string().contains("no permission"), "{error}");
    assert_eq!(stage.database.value("SELECT count(*) FROM outbox").await, "9");
}
