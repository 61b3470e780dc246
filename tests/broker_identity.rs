//! The database records its broker: a role with another broker or another number of partitions does nothing, and `ledger
//! broker switch` moves everything or nothing.

use std::{process::Output, time::Duration};

use ledger::{
    broker::{self, BrokerIdentity, OutgoingRecord, SharedBroker},
    config::BrokerKind,
    repository::broker_identity,
    runtime::LeaseGroup,
};
use serde_json::Value;

use crate::support::{
    binary::{self, Binary},
    eventually,
    kafka::Kafka,
    own_kafka::OwnKafka,
    postgres::TestDatabase,
    proxy::Proxy,
    system::System,
};

const SETTINGS: [(&str, &str); 6] = [
    ("LEDGER_ADMIN__LISTEN", "127.0.0.1:0"),
    ("LEDGER_BROKER__TOPICS__TRANSACTIONS_PARTITIONS", "3"),
    ("LEDGER_BROKER__TOPICS__RISK_ASSESSMENTS_PARTITIONS", "3"),
    ("LEDGER_BROKER__TOPICS__DEAD_LETTERS_PARTITIONS", "1"),
    ("LEDGER_RELAY__LEASE_TTL", "1s"),
    ("LEDGER_CONSUME_RISK__LEASE_TTL", "1s"),
];
/// The roles compare the broker with the record every 10 s.
const NOTICED_WITHIN: Duration = Duration::from_secs(40);

/// One database that is used with and without Kafka.
struct Stage {
    system: System,
    servers: String,
}

impl Stage {
    async fn new(kafka: &OwnKafka) -> Self {
        let system = System { database: TestDatabase::new().await, kafka: None };
        Self { system, servers: kafka.address.to_string() }
    }

    /// Returns the environment of a command; `on_kafka` is whether it has the settings of Kafka.
    fn environment(&self, on_kafka: bool) -> Vec<(&str, &str)> {
        let mut all = SETTINGS.to_vec();
        all.push(("LEDGER_DATABASE__URL", &self.system.database.url));
        if on_kafka {
            all.push(("LEDGER_BROKER__KIND", "kafka"));
            all.push(("LEDGER_BROKER__KAFKA__BOOTSTRAP_SERVERS", &self.servers));
        }
        all
    }

    fn run(&self, arguments: &[&str], on_kafka: bool) -> Output {
        binary::run(arguments, &self.environment(on_kafka))
    }

    /// Runs a command that must fail with one line, and returns stderr.
    fn refusal(&self, arguments: &[&str], on_kafka: bool) -> String {
        let output = self.run(arguments, on_kafka);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        stderr
    }

    fn json(&self, arguments: &[&str], on_kafka: bool) -> Value {
        let output = self.run(&[arguments, &["--output", "json"]].concat(), on_kafka);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        serde_json::from_slice(&output.stdout).expect("json")
    }

    fn start(&self, role: &str, on_kafka: bool) -> Binary {
        let mut role = Binary::start(&[role], &self.environment(on_kafka));
        role.line_with("started role=");
        role
    }

    async fn value(&self, sql: &str) -> String {
        self.system.database.value(sql).await
    }

    async fn until(&self, sql: &str, wanted: &str) {
        eventually(&format!("{sql} is {wanted}"), async || self.value(sql).await == wanted).await;
    }

    async fn broker(&self, on_kafka: bool) -> SharedBroker {
        let kafka = [("broker.kind", "kafka"), ("broker.kafka.bootstrap_servers", self.servers.as_str())];
        let overrides = if on_kafka { &kafka[..] } else { &[] };
        let database = &self.system.database;
        broker::connect(&database.config_with(overrides), database.pool()).await.expect("a broker")
    }

    /// Publishes a record that no consumer can handle.
    async fn publish_poison(&self, on_kafka: bool) {
        let record = OutgoingRecord {
            key: Some("foreign".into()),
            value: Some("no event".into()),
            headers: [("ce_type", "Another.v1")].into(),
            timestamp: chrono::Utc::now(),
        };
        let broker = self.broker(on_kafka).await;
        broker.produce("transactions.v1", 0, vec![record]).await.expect("published");
    }

    /// Returns the number of records of a topic.
    async fn records(&self, topic: &str, on_kafka: bool) -> i64 {
        let broker = self.broker(on_kafka).await;
        let mut records = 0;
        for partition in 0..broker.partitions(topic).await.expect("a topic") {
            records += broker.offset_range(topic, partition).await.expect("a range").latest;
        }
        records
    }

    /// Asserts that `verify` finds no difference.
    fn verify(&self, on_kafka: bool) -> Value {
        let output = self.run(&["verify", "--wait", "60s", "--output", "json"], on_kafka);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let differing: Vec<&Value> = report["checks"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|check| check["status"] != "ok")
            .collect();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && differing.is_empty(), "{differing:#?}\n{stderr}");
        report
    }
}

const UNASSESSED: &str =
    "SELECT count(*) FROM transactions WHERE id NOT IN (SELECT transaction_id FROM risk_assessments)";

/// Seen to fail without the comparison: the relay without the Kafka settings runs beside the other one.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_or_command_with_another_broker_is_refused_whichever_started_first() {
    let Some(kafka) = OwnKafka::start().await else { return };
    let stage = Stage::new(&kafka).await;
    let relay = stage.start("relay", true);
    stage.system.post(0, 200, 7, |_| None).await;
    let commands: [&[&str]; 7] = [
        &["relay"],
        &["consume-risk"],
        &["topics"],
        &["topics", "create"],
        &["verify"],
        &["consumers", "reset", "--group", "risk", "--to", "earliest"],
        &["dlq", "replay", "--all"],
    ];
    for arguments in commands {
        let stderr = stage.refusal(arguments, false);
        let identity = stage.value("SELECT cluster_id FROM broker_identity").await;
        for part in [&format!("kafka cluster {identity} (recorded by relay "), "but broker.kind is postgres"]
        {
            assert!(stderr.contains(part), "{arguments:?}: {part:?} in {stderr}");
        }
        assert_eq!(stderr.matches("error: ").count(), 1, "{stderr}");
    }
    stage.until("SELECT count(*) FROM outbox", "0").await;
    assert_eq!(stage.value("SELECT count(*) FROM broker_partitions").await, "0", "nothing was diverted");
    assert_eq!(stage.records("transactions.v1", true).await, 200);
    relay.stop();
    let shown = stage.json(&["topics"], true);
    assert_eq!(shown["broker"], "kafka");
    assert_eq!(shown["cluster_id"], stage.value("SELECT cluster_id FROM broker_identity").await);
    assert!(shown["database"].as_str().is_some_and(|address| address.contains("/test_")), "{shown}");
    let table = stage.run(&["lanes"], false);
    let table = String::from_utf8_lossy(&table.stdout);
    assert!(table.lines().next().is_some_and(|line| line.contains(", broker kafka cluster ")), "{table}");

    // The wrong role is the first one on this database.
    let stage = Stage::new(&kafka).await;
    let wrong = stage.start("relay", false);
    for role in ["relay", "consume-risk"] {
        let stderr = stage.refusal(&[role], true);
        assert!(
            stderr.contains("the broker postgres (recorded by relay ") && stderr.contains("is kafka"),
            "{stderr}"
        );
    }
    wrong.stop();
}

/// The procedure of docs/operations.md. Seen to fail with positions that stay, and with dead letters that keep the offsets of
/// the old broker: the poison record of Kafka, at the same offset, gets no dead letter.
#[tokio::test(flavor = "multi_thread")]
async fn the_move_from_postgresql_to_kafka_skips_nothing_and_assesses_nothing_twice() {
    let Some(kafka) = OwnKafka::start().await else { return };
    let stage = Stage::new(&kafka).await;
    let relay = stage.start("relay", false);
    stage.publish_poison(false).await;
    stage.system.post(0, 300, 11, |_| None).await;
    stage.until("SELECT count(*) FROM outbox", "0").await;
    let switch = ["broker", "switch", "--yes"];
    let refused = stage.refusal(&switch, true);
    assert!(refused.contains("relays or consumers are running: stop "), "{refused}");
    relay.stop();
    let refused = stage.refusal(&switch, true);
    assert!(refused.contains("300 transactions are published to postgres and not assessed"), "{refused}");
    let consumer = stage.start("consume-risk", false);
    stage.until(UNASSESSED, "0").await;
    stage.until("SELECT count(*) FROM dead_letters", "1").await;
    consumer.stop();
    // These wait in the outbox, together with the announcements of the assessments above.
    stage.system.post(300, 200, 11, |_| None).await;

    let dry = stage.json(&["broker", "switch", "--dry-run"], true);
    assert_eq!(
        (&dry["plan"]["positions_removed"], &dry["plan"]["from"]),
        (&3.into(), &"postgres".into()),
        "{dry}"
    );
    assert_eq!(dry["plan"]["topics"][0]["partitions"], Value::Null, "a dry run creates nothing: {dry}");
    let unconfirmed = stage.run(&["broker", "switch"], true);
    assert_eq!(unconfirmed.status.code(), Some(2), "{}", String::from_utf8_lossy(&unconfirmed.stderr));
    assert_eq!(stage.value("SELECT kind FROM broker_identity").await, "postgres");
    stage.json(&switch, true);
    assert_eq!(stage.value("SELECT kind || ' ' || generation FROM broker_identity").await, "kafka 2");
    let old = stage.refusal(&["relay"], false);
    assert!(old.contains("but broker.kind is postgres"), "{old}");

    stage.publish_poison(true).await;
    let (relay, consumer) = (stage.start("relay", true), stage.start("consume-risk", true));
    stage.system.post(500, 100, 11, |_| None).await;
    stage.until(UNASSESSED, "0").await;
    stage.until("SELECT count(*) FROM outbox", "0").await;
    assert_eq!(stage.value("SELECT count(*) FROM risk_assessments").await, "600");
    assert_eq!(stage.value("SELECT count(*) FROM dead_letters").await, "2");
    assert_eq!(
        stage.records("transactions.v1", true).await,
        301,
        "the poison record and the rows of the outbox"
    );
    assert_eq!(stage.records("transactions.v1", false).await, 301);
    // The announcements of the first assessments waited in the outbox for the new broker.
    let announced =
        stage.records("risk-assessments.v1", true).await + stage.records("risk-assessments.v1", false).await;
    assert_eq!(announced, 600, "one event for each assessment");
    let report = stage.verify(true);
    assert!(report.to_string().contains("the broker was switched at "), "{report:#}");
    relay.stop();
    consumer.stop();
    let done = stage.json(&switch, true);
    assert_eq!(done["result"], "nothing to switch: this is the recorded broker");
}

/// Seen to fail without the comparison: the roles continue.
#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_stops_the_roles_until_a_switch_accepts_it() {
    let Some(kafka) = OwnKafka::start().await else { return };
    let stage = Stage::new(&kafka).await;
    let (relay, consumer) = (stage.start("relay", true), stage.start("consume-risk", true));
    stage.system.post(0, 100, 7, |_| None).await;
    stage.until(UNASSESSED, "0").await;
    let tool = "org.apache.kafka.tools.TopicCommand";
    kafka.tool(tool, &["--alter", "--topic", "transactions.v1", "--partitions", "6"]).await;
    let why = "has 6 partitions, but the database records 3";
    for role in [relay, consumer] {
        let (status, stderr) = role.ended_within(NOTICED_WITHIN);
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
    }
    for role in ["relay", "consume-risk"] {
        let stderr = stage.refusal(&[role], true);
        assert!(stderr.contains(why), "{role}: {stderr}");
    }
    stage.system.post(100, 100, 7, |_| None).await;
    let switched = stage.json(&["broker", "switch", "--yes"], true);
    assert_eq!(
        (&switched["plan"]["positions_removed"], &switched["plan"]["is_other_broker"]),
        (&0.into(), &false.into())
    );
    let (relay, consumer) = (stage.start("relay", true), stage.start("consume-risk", true));
    stage.until(UNASSESSED, "0").await;
    assert_eq!(stage.value("SELECT count(*) FROM consumer_positions").await, "6");
    assert_eq!(stage.value("SELECT count(*) FROM risk_assessments").await, "200");
    stage.verify(true);
    relay.stop();
    consumer.stop();
}

/// Seen to fail when leases were taken in any generation: a relay that slept through the switch took lanes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_the_generation_before_a_switch_gets_no_lease() {
    let database = TestDatabase::new().await;
    let identity = BrokerIdentity { kind: BrokerKind::Postgres, cluster_id: String::new() };
    let mut connection = database.connection().await;
    assert!(broker_identity::insert(&mut connection, &identity, "test").await.expect("inserted"));
    let join = |generation| {
        let ttl = Duration::from_secs(2);
        LeaseGroup::join_in_generation(
            &database.context(),
            Some(generation),
            "relay",
            vec!["relay/lane/0".into()],
            ttl,
        )
    };
    let sleeper = join(1);
    eventually("the lease is held", async || sleeper.held().len() == 1).await;
    let switched = "UPDATE broker_identity SET generation = 2;
                    UPDATE leases SET owner = NULL, epoch = epoch + 1, expires_at = '-infinity'";
    database.client().await.batch_execute(switched).await.expect("switched");
    eventually("the lease is lost", async || sleeper.held().is_empty()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(sleeper.held().is_empty(), "the lease is free, and the sleeper leaves it");
    sleeper.leave().await;
    let next = join(2);
    eventually("the next generation holds it", async || next.held().len() == 1).await;
}

/// Seen to fail when each role replaced the record.
#[tokio::test(flavor = "multi_thread")]
async fn roles_that_start_at_the_same_time_agree_on_one_broker() {
    let database = TestDatabase::new().await;
    let starts = (0..8).map(|number| {
        let database = TestDatabase::at(&database.url);
        tokio::spawn(async move {
            let mut connection = database.connection().await;
            let identity = match number % 2 {
                0 => BrokerIdentity { kind: BrokerKind::Postgres, cluster_id: String::new() },
                _ => BrokerIdentity { kind: BrokerKind::Kafka, cluster_id: "cluster".into() },
            };
            let by = format!("role {number}");
            let is_first = broker_identity::insert(&mut connection, &identity, &by).await.expect("inserted");
            let recorded = broker_identity::read(&mut connection).await.expect("read").expect("recorded");
            (is_first, recorded.recorded_by)
        })
    });
    let outcomes = futures::future::join_all(starts).await;
    let outcomes: Vec<(bool, String)> =
        outcomes.into_iter().map(|outcome| outcome.expect("no panic")).collect();
    assert_eq!(outcomes.iter().filter(|(is_first, _)| *is_first).count(), 1);
    assert!(outcomes.iter().all(|(_, by)| *by == outcomes[0].1), "{outcomes:?}");
}

/// Seen to fail without the comparison at each connection: the address came to lead to another cluster, which got the next
/// records.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_never_connects_to_a_second_cluster() {
    let (Some(own), Some(shared)) = (OwnKafka::start().await, Kafka::get()) else { return };
    let proxy = Proxy::start(own.address).await;
    let database = TestDatabase::new().await;
    let servers = proxy.address.to_string();
    let overrides = [("broker.kind", "kafka"), ("broker.kafka.bootstrap_servers", servers.as_str())];
    let broker = broker::connect(&database.config_with(&overrides), database.pool()).await.expect("Kafka");
    let first = broker.identify(&[]).await.expect("an answer").identity;
    assert!(!first.cluster_id.is_empty());
    proxy.point_at(shared.bootstrap_servers.parse().expect("an address"));
    proxy.reset();
    let refused = broker.identify(&[]).await.expect_err("another cluster").to_string();
    assert!(
        refused.contains("but this process began with the cluster") && refused.contains(&first.cluster_id),
        "{refused}"
    );
}
