//! `ledger consumers`: it lists positions, and a reset moves a position. Consumers continue from the new position,
//! without a second effect of any record.

mod forget;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use ledger::{
    broker::{self, OutgoingRecord, SharedBroker, TopicSpec, topic_specs},
    consume_risk::{PartitionConsumer, StepOutcome},
    domain::{AccountId, Amount, Currency, Direction, IdempotencyKey, Posting},
    event::{TRANSACTION_CREATED, TRANSACTIONS_TOPIC, cloud_event_headers},
    posting::{Request, post_locked},
    repository::{
        leases::{self, Lease},
        positions::PartitionName,
    },
    risk::{Ruleset, SHIPPED_RULES},
};
use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;

use crate::support::{
    binary::{self, Binary},
    eventually,
    kafka::Kafka,
    postgres::TestDatabase,
};

const TTL: std::time::Duration = std::time::Duration::from_secs(2);

/// A database, a broker with a topic of one partition, and the binary on both.
struct Stage {
    database: TestDatabase,
    broker: SharedBroker,
    topic: String,
    environment: Vec<(String, String)>,
}

impl Stage {
    async fn with(topic: &str, overrides: &[(&str, &str)]) -> Self {
        let database = TestDatabase::new().await;
        let all =
            [&[("broker.topics.transactions_partitions", "1"), ("consume_risk.lease_ttl", "1s")], overrides]
                .concat();
        let config = database.config_with(&all);
        let broker = broker::connect(&config, database.pool()).await.expect("a broker");
        broker.ensure_topics(&[TopicSpec::new(topic, 1)], true).await.expect("a topic");
        let mut environment = vec![
            ("LEDGER_DATABASE__URL".to_owned(), database.url.clone()),
            ("LEDGER_ADMIN__LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
        ];
        let variable = |key: &str| format!("LEDGER_{}", key.to_uppercase().replace('.', "__"));
        environment.extend(all.iter().map(|(key, value)| (variable(key), (*value).to_owned())));
        Self { database, broker, topic: topic.to_owned(), environment }
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Returns the output of `ledger consumers …` as JSON.
    fn consumers(&self, arguments: &[&str]) -> Value {
        let arguments = [&["consumers"], arguments, &["--output", "json"]].concat();
        let output = binary::run(&arguments, &self.environment());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        serde_json::from_slice(&output.stdout).expect("json")
    }

    /// Expects exit code 1 and returns stderr.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = binary::run(&[&["consumers"], arguments].concat(), &self.environment());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        stderr
    }

    async fn count(&self, from: &str) -> usize {
        self.database.value(&format!("SELECT count(*) FROM {from}")).await.parse().expect("a number")
    }

    async fn post(&self, count: usize) {
        let requests: Vec<Request> = (0..count).map(request).collect();
        post_locked(&mut self.database.connection().await, &requests).await.expect("posted");
    }

    /// Publishes the outbox, with timestamps one second apart from `first` on.
    async fn publish(&self, first: DateTime<Utc>) {
        let taken = "WITH taken AS (DELETE FROM outbox WHERE topic = 'transactions.v1' RETURNING id, key, value, event_id)
                     SELECT key, value, event_id::text FROM taken ORDER BY id";
        let rows = self.database.client().await.query(taken, &[]).await.expect("outbox");
        let records = rows.iter().zip(0..).map(|(row, number)| OutgoingRecord {
            key: row.get::<_, Option<Vec<u8>>>(0).map(Into::into),
            value: row.get::<_, Option<Vec<u8>>>(1).map(Into::into),
            headers: cloud_event_headers(
                row.get::<_, String>(2).parse().expect("uuid"),
                TRANSACTION_CREATED,
                first,
                None,
            ),
            timestamp: first + TimeDelta::seconds(number),
        });
        self.broker.produce(&self.topic, 0, records.collect()).await.expect("published");
    }

    async fn consumer(&self) -> PartitionConsumer {
        let context = self.database.context();
        let name = PartitionName { group: "risk".into(), topic: self.topic.clone(), partition: 0 };
        let names = [name.lease_name()];
        let mut connection = self.database.connection().await;
        leases::create(&mut connection, &names).await.expect("created");
        let taken = leases::take(&mut connection, &context.instance, &names, 1, TTL).await.expect("taken");
        let taken = taken.into_iter().next().expect("free");
        let lease = Lease::new(taken.name, context.instance.to_string(), taken.epoch, TTL);
        let ruleset = Arc::new(Ruleset::parse(SHIPPED_RULES).expect("valid"));
        PartitionConsumer::new(context, self.broker.clone(), watch::channel(ruleset).1, name, lease)
    }

    /// Removes the first five records, as retention does.
    async fn remove_the_first_five(&self, kafka: Option<&Kafka>) {
        let Some(kafka) = kafka else {
            let lost = "DELETE FROM broker_records WHERE record_offset < 5";
            self.database.client().await.batch_execute(lost).await.expect("deleted");
            return;
        };
        let file = tempfile::NamedTempFile::new().expect("file");
        let topic = &self.topic;
        let json =
            serde_json::json!({"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": 5}]});
        std::fs::write(file.path(), json.to_string()).expect("written");
        let path = file.path().to_str().expect("UTF-8");
        let class = "org.apache.kafka.tools.DeleteRecordsCommand";
        kafka.tool(class, &["--offset-json-file", path]).await;
    }
}

fn request(number: usize) -> Request {
    let posting = Posting {
        account_id: AccountId::parse("acct").expect("valid"),
        idempotency_key: IdempotencyKey::parse(&format!("key-{number}")).expect("valid"),
        direction: Direction::Credit,
        amount: Amount::from_minor(1_000).expect("valid"),
        currency: Currency::parse("EUR").expect("known"),
        counterparty: None,
        description: None,
        metadata: None,
        reverses: None,
        created_at: None,
    };
    Request { posting: posting.into(), traceparent: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_fences_the_running_consumer_and_no_record_has_a_second_effect() {
    let stage = Stage::with(TRANSACTIONS_TOPIC, &[]).await;
    stage
        .broker
        .ensure_topics(
            &topic_specs(&stage.database.config_with(&[("broker.topics.transactions_partitions", "1")])),
            true,
        )
        .await
        .expect("topics");
    stage.post(300).await;
    let relay = Binary::start(&["relay"], &stage.environment());
    let consumer = Binary::start(&["consume-risk"], &stage.environment());
    let settled = async || {
        eventually("every transaction is assessed and every event published", async || {
            stage.count("risk_assessments").await == 300
                && stage.count("outbox").await == 0
                && stage.count("consumer_positions WHERE next_offset = 300").await == 1
        })
        .await;
    };
    settled().await;
    let first = |output: &Value| output["items"][0].clone();
    let before = first(&stage.consumers(&[]));
    assert_eq!((&before["state"], &before["lag"]), (&"owned".into(), &0.into()), "{before}");

    let planned = stage.consumers(&["reset", "--group", "risk", "--to", "earliest", "--dry-run"]);
    assert_eq!((&first(&planned)["from"], &first(&planned)["to"]), (&300.into(), &0.into()));
    assert_eq!(
        first(&stage.consumers(&["--group", "risk"]))["epoch"],
        before["epoch"],
        "a dry run moves nothing"
    );

    let moved = first(&stage.consumers(&["reset", "--group", "risk", "--to", "earliest"]));
    assert_eq!((&moved["from"], &moved["to"]), (&300.into(), &0.into()), "{moved}");
    assert_eq!(moved["taken_from"], before["owner"]);
    settled().await;
    let after = first(&stage.consumers(&[]));
    assert!(after["epoch"].as_i64() > before["epoch"].as_i64().map(|epoch| epoch + 1), "{before} {after}");
    assert_eq!(after["owner"], before["owner"], "the same process continues");
    assert_eq!(
        stage.count("broker_records WHERE topic = 'risk-assessments.v1'").await,
        300,
        "announced once"
    );
    consumer.stop();
    relay.stop();
    assert_eq!(first(&stage.consumers(&[]))["state"], "unowned");
}

/// Fails if a consumer continues from the first record that exists.
#[tokio::test(flavor = "multi_thread")]
async fn an_offset_removed_by_retention_halts_the_partition_until_a_reset() {
    let name = format!("lost-{}", Uuid::new_v4().simple());
    let mut stages = vec![(Stage::with(&name, &[]).await, None)];
    if let Some(kafka) = Kafka::get() {
        stages.push((Stage::with(&name, &kafka.overrides()).await, Some(kafka)));
    }
    for (stage, kafka) in stages {
        let first = DateTime::parse_from_rfc3339("2026-11-24T10:00:00Z").expect("a time").to_utc();
        stage.post(10).await;
        stage.publish(first).await;
        let mut consumer = stage.consumer().await;
        let at_two = format!(
            "INSERT INTO consumer_positions (consumer_group, topic, partition, next_offset) VALUES ('risk', '{name}', 0, 2)"
        );
        stage.database.client().await.batch_execute(&at_two).await.expect("a position");
        stage.remove_the_first_five(kafka).await;
        let error = format!("{:#}", consumer.run_once().await.expect_err("halted"));
        let advice =
            format!("`ledger consumers reset --group risk --topic {name} --partition 0 --to earliest`");
        assert!(error.contains(&advice) && error.contains("is outside 5..10"), "{error}");
        let halted = stage.consumers(&["--group", "risk"]);
        let halted = halted["items"].as_array().expect("items").iter().find(|item| item["topic"] == *name);
        let halted = halted.expect("listed");
        assert_eq!((&halted["state"], &halted["position"]), (&"halted".into(), &2.into()), "{halted}");

        let reset = |to: &str| stage.consumers(&["reset", "--group", "risk", "--topic", &name, "--to", to]);
        assert_eq!(reset("2026-11-24T10:00:06.500Z")["items"][0]["to"], 7);
        assert_eq!(reset("2026-11-25")["items"][0]["to"], 10);
        assert_eq!(reset("earliest")["items"][0]["to"], 5);
        let fenced = consumer.run_once().await.and(consumer.run_once().await);
        assert!(format!("{fenced:?}").contains("was lost"), "{fenced:?}");
        assert_eq!(stage.count("risk_assessments").await, 0);
        let mut next = stage.consumer().await;
        while next.run_once().await.expect("a step") != StepOutcome::Idle {}
        let assessed = "SELECT string_agg(account_seq::text, ',' ORDER BY account_seq) FROM risk_assessments";
        assert_eq!(stage.database.value(assessed).await, "6,7,8,9,10");
        if let Some(kafka) = kafka {
            reset("7");
            let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
            let output = kafka.tool(class, &["--describe", "--group", "risk"]).await;
            let line = output.lines().find(|line| line.contains(&name)).expect("described");
            let fields: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(fields[2..6], ["0", "7", "10", "3"], "partition, position, end and lag: {line}");
        }
    }
}

/// Runs the role itself: the metric is 1 until the operator resets the position.
/// Fails if a consumer continues from the first record that exists.
#[tokio::test(flavor = "multi_thread")]
async fn a_halted_partition_sets_the_metric_until_a_reset() {
    let stage = Stage::with(TRANSACTIONS_TOPIC, &[]).await;
    stage.post(10).await;
    stage.publish(Utc::now()).await;
    stage.remove_the_first_five(None).await;
    let at_two = "INSERT INTO consumer_positions (consumer_group, topic, partition, next_offset) VALUES ('risk', 'transactions.v1', 0, 2)";
    stage.database.client().await.batch_execute(at_two).await.expect("a position");
    let mut consumer = Binary::start(&["consume-risk"], &stage.environment());
    let admin = consumer.field("admin");
    let metric = |value: &str| {
        let (_, text) = binary::get(&admin, "/metrics").unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("ledger_consumer_halted{")).unwrap_or_default();
        line.ends_with(value)
    };
    eventually("the metric is 1", async || metric(" 1")).await;
    assert_eq!(stage.count("risk_assessments").await, 0);
    stage.consumers(&["reset", "--group", "risk", "--to", "earliest"]);
    eventually("it continues", async || stage.count("risk_assessments").await == 5 && metric(" 0")).await;
    consumer.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_reset_is_refused_and_moves_nothing() {
    let stage = Stage::with(TRANSACTIONS_TOPIC, &[]).await;
    stage.post(3).await;
    stage.publish(Utc::now()).await;
    let mut consumer = stage.consumer().await;
    while consumer.run_once().await.expect("a step") != StepOutcome::Idle {}
    let before = stage.database.value("SELECT json_agg(p)::text FROM consumer_positions p").await;
    for (arguments, part) in [
        (&["reset", "--group", "rsik", "--to", "earliest"][..], "there is no consumer group rsik"),
        (&["--group", "rsik"], "there is no consumer group rsik"),
        (&["reset", "--group", "risk", "--to", "4"], "holds 0 to 3, and 4 is outside; nothing was moved"),
        (&["reset", "--group", "risk", "--partition", "1", "--to", "0"], "has partitions 0 to 0, not 1"),
        (
            &["reset", "--group", "risk", "--topic", "elsewhere", "--to", "0"],
            "topic elsewhere does not exist",
        ),
    ] {
        let stderr = stage.refused(arguments);
        assert!(stderr.contains(part), "{arguments:?}: {stderr}");
    }
    for arguments in [
        &["consumers", "reset", "--to", "earliest"][..],
        &["consumers", "reset", "--group", "risk", "--to", "soon"],
    ] {
        assert_eq!(binary::run(arguments, &stage.environment()).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(stage.database.value("SELECT json_agg(p)::text FROM consumer_positions p").await, before);
    let table = binary::run(&["consumers"], &stage.environment());
    assert!(String::from_utf8_lossy(&table.stdout).contains("lag 0 in 1 partitions"));
}
