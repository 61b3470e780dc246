//! A cluster of three brokers, with the settings that docs/operations.md asks for: three copies of each partition, and two
//! that must have a record. It loses the leader of some partitions, then all brokers but one. Nothing is lost. At the end an
//! unclean election loses the end of the logs, which halts their partitions.
//!
//! One test, because a cluster of three takes long to start.

use std::{fs, time::Duration};

use ledger::{
    broker::{OffsetRange, TopicSpec},
    event::TRANSACTIONS_TOPIC,
};
use serde_json::json;

use crate::support::{
    api::transaction,
    binary::Binary,
    clients::Clients,
    eventually_within,
    own_kafka::{JoinedBroker, OwnKafka},
    postgres::TestDatabase,
    system::System,
};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const REASSIGN: &str = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";

/// A request that waits for a replica on a busy machine must not time out, because the relay would publish it twice.
const SETTINGS: [(&str, &str); 4] = [
    ("LEDGER_BROKER__TOPICS__REPLICATION_FACTOR", "3"),
    ("LEDGER_BROKER__TOPICS__MIN_INSYNC_REPLICAS", "2"),
    ("LEDGER_BROKER__KAFKA__REQUEST_TIMEOUT", "10s"),
    ("LEDGER_BROKER__KAFKA__CONNECT_TIMEOUT", "10s"),
];
/// The same number as in the settings of `System`.
const PARTITIONS: i32 = 6;
const ACCOUNTS: usize = 40;
/// Kafka misses a dead broker after 9 s, and a busy machine takes longer.
const LIMIT: Duration = Duration::from_secs(120);

/// The first broker is also the controller and never fails.
struct Cluster {
    system: System,
    second: JoinedBroker,
    third: JoinedBroker,
}

impl Cluster {
    async fn start() -> Option<Self> {
        let kafka = OwnKafka::start().await?;
        let (second, third) = tokio::join!(kafka.start_broker(2), kafka.start_broker(3));
        let system = System::with(TestDatabase::new().await, kafka).await;
        // A broker that answers may not get partitions yet.
        let broker = system.broker().await;
        broker.ensure_topics(&[TopicSpec::new("any", 1)], true).await.expect("created");
        eventually_within(LIMIT, "the cluster has three brokers", async || {
            let any = broker.describe_topic("any").await.expect("an answer");
            any.is_some_and(|any| any.brokers == Some(3))
        })
        .await;
        Some(Self { system, second, third })
    }

    async fn tool(&self, class: &str, arguments: &[&str]) {
        self.system.kafka().broker.tool(class, arguments).await;
    }

    /// Waits until exactly these brokers have all records of each partition.
    async fn in_sync(&self, brokers: &[&str]) {
        let is_as_wanted = |field: &str| {
            let found = field.trim().strip_prefix("Isr: ");
            let mut found: Vec<&str> = found.unwrap_or_default().split(',').collect();
            found.sort_unstable();
            found == brokers
        };
        eventually_within(LIMIT, "the replicas in sync", async || {
            let describe = ["--describe", "--topic", TRANSACTIONS_TOPIC];
            let described = self.system.kafka().broker.tool(TOPICS, &describe).await;
            let fields = described.lines().flat_map(|line| line.split('\t'));
            fields.filter(|field| is_as_wanted(field)).count() == PARTITIONS as usize
        })
        .await;
    }

    async fn published(&self) {
        let waiting = "outbox WHERE topic = 'transactions.v1'";
        eventually_within(LIMIT, "all is published", async || self.count(waiting).await == 0).await;
    }

    /// Waits until a table has this number of rows.
    async fn reaches(&self, from: &str, count: usize) {
        eventually_within(LIMIT, from, async || self.count(from).await == count).await;
    }

    async fn count(&self, from: &str) -> usize {
        self.system.count(from).await
    }

    async fn is_whole(&self) {
        self.system.is_whole().await;
        assert_eq!(self.count("dead_letters").await, 0);
    }

    /// Returns the number of records of all partitions.
    async fn records(&self) -> i64 {
        let broker = self.system.broker().await;
        let mut records = 0;
        for partition in 0..PARTITIONS {
            let range = broker.offset_range(TRANSACTIONS_TOPIC, partition).await;
            let OffsetRange { earliest, latest } = range.expect("a range");
            records += latest - earliest;
        }
        records
    }
}

/// How many outages the relay has reported.
fn outages(relay: &Binary) -> usize {
    relay.stderr().matches("publishing the outbox fails, retrying until it works").count()
}

/// Posts transactions one after the other. Each must be accepted.
async fn all_are_accepted(url: &str, count: usize) {
    let client = reqwest::Client::new();
    for number in 0..count {
        let request =
            client.post(format!("{url}/transactions")).header("idempotency-key", number.to_string());
        let body = transaction(&format!("alone-{}", number % ACCOUNTS), "credit", "1.00", "EUR");
        let answer = request.json(&body).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 201, "{answer:?}");
    }
}

/// A broker that leads a third of the partitions dies under load.
async fn a_leader_dies(cluster: &Cluster, url: &str) {
    let clients = Clients::start(&[url.to_owned()], 4, ACCOUNTS, Duration::from_millis(20));
    clients.more(200).await;
    cluster.second.kill();
    let waiting = async || cluster.count("outbox").await;
    eventually_within(LIMIT, "events wait for the new leader", async || waiting().await > 50).await;
    eventually_within(LIMIT, "the new leader accepts them", async || waiting().await < 50).await;
    clients.more(50).await;
    let known = clients.finish().await;
    let differences = known.differences(&cluster.system.database).await;
    assert!(differences.is_empty(), "{differences:#?}");
    cluster.is_whole().await;
}

/// One broker alone may not accept records. Nothing is in flight when the other one dies, so nothing is published twice.
async fn one_broker_is_left(cluster: &Cluster, url: &str, relay: &Binary) {
    cluster.third.kill();
    cluster.in_sync(&["1"]).await;
    let (records, reported) = (cluster.records().await, outages(relay));
    let refused = |relay: &Binary| relay.stderr().matches("NotEnoughReplicas").count();
    let before = refused(relay);
    let count = 200;
    all_are_accepted(url, count).await;
    eventually_within(LIMIT, "the relay says why it waits", async || refused(relay) > before).await;
    assert_eq!(cluster.count("outbox WHERE topic = 'transactions.v1'").await, count, "nothing is published");
    tokio::join!(cluster.second.up(), cluster.third.up());
    cluster.is_whole().await;
    assert_eq!(outages(relay), reported + 1, "{}", relay.stderr());
    assert_eq!(
        cluster.records().await,
        records + i64::try_from(count).expect("few"),
        "each is published once"
    );
}

/// The topic allows an unclean election and needs one replica only. The leader publishes alone and dies, and a broker that
/// lacks its last records becomes the leader.
async fn an_unclean_election_loses_the_end(cluster: &Cluster, consumer: &Binary) {
    let on_two =
        (0..PARTITIONS).map(|n| json!({"topic": TRANSACTIONS_TOPIC, "partition": n, "replicas": [2, 3]}));
    let on_two = json!({"version": 1, "partitions": on_two.collect::<Vec<_>>()}).to_string();
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), on_two).expect("written");
    let path = file.path().to_str().expect("UTF-8");
    cluster.tool(REASSIGN, &["--execute", "--reassignment-json-file", path]).await;
    let weaker = "unclean.leader.election.enable=true,min.insync.replicas=1";
    let alter = ["--alter", "--entity-type", "topics", "--entity-name", TRANSACTIONS_TOPIC];
    cluster.tool(CONFIGS, &[&alter[..], &["--add-config", weaker]].concat()).await;

    cluster.in_sync(&["2", "3"]).await;
    cluster.third.kill();
    cluster.in_sync(&["2"]).await;
    let before = cluster.count("transactions").await;
    cluster.system.post(0, 240, 60, |_| None).await;
    cluster.reaches("risk_assessments", before + 240).await;
    let records = cluster.records().await;
    cluster.second.kill();
    cluster.third.up().await;
    let halted = "consumer_positions WHERE halted_at IS NOT NULL";
    cluster.reaches(halted, PARTITIONS as usize).await;
    assert!(consumer.stderr().contains("has lost its end"), "{}", consumer.stderr());
    assert!(cluster.records().await < records, "the new leader lacks records");
    // The new logs become longer than the positions. The partitions stay halted.
    cluster.system.post(240, 480, 60, |_| None).await;
    cluster.published().await;
    assert!(cluster.records().await > records);
    let verified = cluster.system.run(&["verify", "--output", "json"]);
    assert!(String::from_utf8_lossy(&verified.stdout).contains("is halted at"), "verify reports the halts");
    assert_eq!(cluster.count("risk_assessments").await, before + 240, "nothing is read from the other logs");

    // The way out, as the runbook says.
    succeeds(cluster, &["republish", "--missing", "--by", "the operator", "--yes"]);
    succeeds(cluster, &["consumers", "reset", "--group", "risk", "--to", "earliest"]);
    cluster.reaches("risk_assessments", before + 720).await;
    let verified = succeeds(cluster, &["verify", "--wait", "60s"]);
    assert!(verified.contains("nothing differs"), "{verified}");
    assert_eq!(cluster.count("dead_letters").await, 0);
}

fn succeeds(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = cluster.system.run(arguments);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {stdout}{}", String::from_utf8_lossy(&output.stderr));
    stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn three_brokers_lose_one_then_two_and_nothing_is_lost_until_an_unclean_election() {
    let Some(cluster) = Cluster::start().await else { return };
    let (serve, url) = cluster.system.serve(&[]);
    let (relay, consumer) = (cluster.system.relay(&SETTINGS), cluster.system.consumer(&SETTINGS));
    a_leader_dies(&cluster, &url).await;
    one_broker_is_left(&cluster, &url, &relay).await;
    an_unclean_election_loses_the_end(&cluster, &consumer).await;
    for role in [serve, relay, consumer] {
        role.stop();
    }
}
