//! The whole flow on a real Kafka with TLS and SCRAM while other programs write to the topic of transactions.
//!
//! Foreign records become dead letters, change no result and do not stop the partition. Kafka's own tools show the records
//! and the positions.

use chrono::Utc;
use ledger::{
    broker::{self, FetchedRecord, OutgoingRecord, SharedBroker},
    event::{
        Headers, RISK_ASSESSED, RISK_ASSESSMENTS_TOPIC, TRANSACTION_CREATED, TRANSACTIONS_DEAD_LETTER_TOPIC,
        TRANSACTIONS_TOPIC, cloud_event_headers, partition_of,
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    schemas::conforms,
    support::{
        api::{Api, transaction},
        binary::Binary,
        eventually,
        kafka::Kafka,
        postgres::TestDatabase,
    },
};

const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const CONSOLE: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";

/// Reads all records of a topic.
async fn all(broker: &SharedBroker, topic: &str) -> Vec<FetchedRecord> {
    let mut records = Vec::new();
    for partition in 0..broker.partitions(topic).await.expect("known") {
        let range = broker.offset_range(topic, partition).await.expect("a range");
        let mut next = range.earliest;
        while next < range.latest {
            let found =
                broker.fetch(topic, partition, next, 1 << 20, std::time::Duration::from_secs(1)).await;
            for record in found.expect("read").records {
                next = record.offset + 1;
                records.push(record);
            }
        }
    }
    records
}

fn value(record: &FetchedRecord) -> Value {
    serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON")
}

fn encoded(count: usize, bytes: &'static [u8]) -> Headers {
    Headers::from_encoded(count, bytes.into()).expect("headers")
}

/// Records of other programs: the reason of the dead letter, key, headers, value.
fn foreign(real: &FetchedRecord) -> Vec<(&'static str, Option<&'static str>, Headers, Vec<u8>)> {
    let event = value(real);
    let key = Some("acct-1");
    let headers = |event_type: &str| cloud_event_headers(Uuid::now_v7(), event_type, Utc::now(), None);
    let ours = || headers(TRANSACTION_CREATED);
    let with = |changes: Value| {
        let mut event = event.clone();
        for (name, value) in changes.as_object().expect("changes") {
            event[name] = value.clone();
        }
        event.to_string().into_bytes()
    };
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    vec![
        ("undecodable", key, ours(), b"\xff\x00 no JSON".to_vec()),
        ("undecodable", key, ours(), with(json!({"amount": 1.5}))),
        ("undecodable", key, ours(), with(json!({"event_id": one, "transaction_id": other}))),
        ("unknown_type", key, headers("TransactionCreated.v2"), with(json!({}))),
        ("unknown_type", key, Headers::default(), with(json!({}))),
        // A header `a` without a value, a header `b` with an empty value, and a second header `a`.
        ("unknown_type", key, encoded(3, b"\x02a\x01\x02b\x00\x02a\x02x"), with(json!({}))),
        ("no_key", None, ours(), with(json!({}))),
        ("wrong_key", key, ours(), with(json!({"account_id": "acct-2"}))),
        ("not_in_ledger", Some("nobody"), ours(), with(json!({"account_id": "nobody"}))),
        ("not_in_ledger", key, ours(), with(json!({"account_seq": 4711}))),
        // The id of another transaction with the number of this one.
        ("differs_from_ledger", key, ours(), with(json!({"event_id": one, "transaction_id": one}))),
        ("differs_from_ledger", key, ours(), with(json!({"amount": "999.00"}))),
        // A copy of a real event with other metadata.
        ("differs_from_ledger", key, ours(), with(json!({"metadata": {"country": "XX"}}))),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_records_become_dead_letters_and_the_next_records_are_assessed() {
    let Some(kafka) = Kafka::secured() else { return };
    let database = TestDatabase::new().await;
    let (servers, authority, password) = (
        kafka.listener("SASL_SSL"),
        kafka.secure_file("ca.pem").display().to_string(),
        kafka.secure_file("ledger-password").display().to_string(),
    );
    let group = format!("risk-{}", Uuid::now_v7().simple());
    let overrides = [
        ("broker.kind", "kafka"),
        ("broker.kafka.bootstrap_servers", servers.as_str()),
        ("broker.kafka.tls", "true"),
        ("broker.kafka.tls_ca_file", authority.as_str()),
        ("broker.kafka.sasl_mechanism", "scram-sha-512"),
        ("broker.kafka.sasl_username", "ledger"),
        ("broker.kafka.sasl_password_file", password.as_str()),
        ("consume_risk.group", group.as_str()),
        ("consume_risk.attempts_max", "1"),
    ];
    let broker = broker::connect(&database.config_with(&overrides), database.pool()).await.expect("Kafka");
    let environment: Vec<(String, String)> = overrides
        .iter()
        .map(|(key, value)| {
            (format!("LEDGER_{}", key.to_ascii_uppercase().replace('.', "__")), (*value).to_owned())
        })
        .chain([
            ("LEDGER_DATABASE__URL".to_owned(), database.url.clone()),
            ("LEDGER_ADMIN__LISTEN".to_owned(), "off".to_owned()),
        ])
        .collect();
    let pairs: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let roles = [Binary::start(&["relay"], &pairs), Binary::start(&["consume-risk"], &pairs)];
    let api = Api::on(database, &[]).await;
    let assessed = async |count: &str| {
        eventually("the transactions are assessed", async || {
            api.database.value("SELECT count(*) FROM risk_assessments").await == count
        })
        .await;
    };
    for (key, account) in [("order-0001", "acct-1"), ("order-0002", "acct-1"), ("order-0003", "acct-2")] {
        let mut body = transaction(account, "credit", "10.00", "EUR");
        body["metadata"] = json!({"country": "DE", "vip": true, "items": 3});
        assert_eq!(api.post(key, &body).await.status, 201);
    }
    assessed("3").await;

    let published = all(&broker, TRANSACTIONS_TOPIC).await;
    let first = published.iter().find(|record| value(record)["account_id"] == "acct-1").expect("published");
    let partition = partition_of(b"acct-1", broker.partitions(TRANSACTIONS_TOPIC).await.expect("known"));
    let foreign = foreign(first);
    for (_, key, headers, value) in &foreign {
        let record = OutgoingRecord {
            key: key.map(Into::into),
            value: Some(value.clone().into()),
            headers: headers.clone(),
            timestamp: Utc::now(),
        };
        broker.produce(TRANSACTIONS_TOPIC, partition, vec![record]).await.expect("accepted by Kafka");
    }
    // A transaction after all of them in the same partition.
    let after = transaction("acct-1", "debit", "1.00", "EUR");
    assert_eq!(api.post("order-0004", &after).await.status, 201);
    assessed("4").await;

    let reasons = "SELECT string_agg(reason, ' ' ORDER BY record_offset) FROM dead_letters";
    let expected: Vec<&str> = foreign.iter().map(|(reason, ..)| *reason).collect();
    assert_eq!(api.database.value(reasons).await, expected.join(" "));
    let outbox = async || api.database.value("SELECT count(*) FROM outbox").await == "0";
    eventually("everything is published", outbox).await;

    // The dead-letter topic holds the records unchanged, with headers that name the origin and the reason.
    let dead_letters = all(&broker, TRANSACTIONS_DEAD_LETTER_TOPIC).await;
    for (reason, key, headers, value) in &foreign {
        let dead_letter = dead_letters.iter().find(|dead_letter| {
            dead_letter.value.as_deref() == Some(value)
                && dead_letter.key.as_deref() == key.map(str::as_bytes)
                && dead_letter.headers.encoded().starts_with(headers.encoded())
        });
        let dead_letter =
            dead_letter.unwrap_or_else(|| panic!("the {reason} record is missing or was changed"));
        assert_eq!(dead_letter.headers.attribute("__ledger.error.reason"), Some(*reason));
        assert_eq!(dead_letter.headers.attribute("__ledger.error.group"), Some(group.as_str()));
    }
    // The events of this project match their schemas.
    for record in &all(&broker, RISK_ASSESSMENTS_TOPIC).await {
        assert_eq!(record.headers.attribute("ce_type"), Some(RISK_ASSESSED));
        conforms(RISK_ASSESSED, &value(record));
    }
    published.iter().for_each(|record| conforms(TRANSACTION_CREATED, &value(record)));

    kafkas_own_tools_show_them(kafka, &group, &broker, partition).await;
    roles.into_iter().for_each(Binary::stop);
    api.stop().await;
}

/// Returns whether Kafka's tool shows the group at the end of the partition.
async fn is_at_the_end(kafka: &Kafka, group: &str, partition: i32, end: &str) -> bool {
    let output = kafka.tool(GROUPS, &["--describe", "--group", group]).await;
    let partition = partition.to_string();
    output.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.starts_with(&[group, TRANSACTIONS_TOPIC, &partition, end, end, "0"])
    })
}

/// Kafka's own tools show the positions and the records.
async fn kafkas_own_tools_show_them(kafka: &Kafka, group: &str, broker: &SharedBroker, partition: i32) {
    let end = broker.offset_range(TRANSACTIONS_TOPIC, partition).await.expect("a range").latest.to_string();
    eventually("no lag is shown", async || is_at_the_end(kafka, group, partition, &end).await).await;
    // Unchanged positions are committed again within a minute, because Kafka forgets positions after a week without a commit.
    // Seen to fail when only changed positions were committed.
    kafka.tool(GROUPS, &["--delete", "--group", group]).await;
    let shown = async || kafka.tool(GROUPS, &["--list"]).await.lines().any(|line| line == group);
    eventually("the group is shown again", shown).await;

    let partition = partition.to_string();
    let read = [
        "--topic",
        TRANSACTIONS_TOPIC,
        "--partition",
        &partition,
        "--offset",
        "0",
        "--max-messages",
        "1",
        "--timeout-ms",
        "20000",
    ];
    let properties = ["--property", "print.headers=true", "--property", "print.key=true"];
    let output = kafka.tool(CONSOLE, &[&read[..], &properties].concat()).await;
    for part in
        ["ce_specversion:1.0", "ce_type:TransactionCreated.v1", "content-type:application/json", "acct-"]
    {
        assert!(output.contains(part), "{output}");
    }
}
