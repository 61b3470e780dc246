//! Compares the Kafka client of the product with clients that share no code with it: rskafka reads and writes with every
//! compression, and Kafka's own producer chooses the same partitions.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use ledger::{
    broker::{self, FetchedRecord, OutgoingRecord, TopicSpec},
    config::Compression,
    event::{Headers, TRANSACTIONS_TOPIC, lane_of, partition_of},
};
use rskafka::record::Record;
use serde_json::json;
use uuid::Uuid;

use crate::support::{
    eventually,
    kafka::Kafka,
    postgres::TestDatabase,
    relay_stage::{OutboxRow, RelayStage},
    rskafka_client,
    system::System,
};

const PARTITIONS: i32 = 6;
const ACCOUNTS: usize = 9;
const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";

type HeaderMap = BTreeMap<String, Vec<u8>>;
/// Key, value and headers of a record.
type Content = (Option<Vec<u8>>, Option<Vec<u8>>, HeaderMap);

fn fresh_topic() -> String {
    format!("test-{}", Uuid::new_v4().simple())
}

fn account(number: usize) -> String {
    format!("acct-{}", number % ACCOUNTS)
}

fn random_bytes(length: usize) -> Vec<u8> {
    (0..length.div_ceil(16)).flat_map(|_| *Uuid::new_v4().as_bytes()).take(length).collect()
}

/// Returns rows of every shape: without a key, a value or own headers; empty, long, compressible and random.
fn rows(topic: &str) -> Vec<OutboxRow> {
    let at = DateTime::parse_from_rfc3339("2026-01-31T12:00:00.000100Z").expect("a time").to_utc();
    (0..90)
        .map(|number| OutboxRow {
            topic: topic.to_owned(),
            key: (number % 10 != 9).then(|| account(number).into_bytes()),
            value: match number % 7 {
                0 => None,
                1 => Some(Vec::new()),
                2 => Some(random_bytes(40_000)),
                3 => Some(vec![b'x'; 70_000]),
                _ => Some(format!("{{\"number\": {number}, \"text\": \"ü\"}}").into_bytes()),
            },
            event_id: Uuid::now_v7(),
            event_type: "Test.v1",
            created_at: at + TimeDelta::microseconds(i64::try_from(number).expect("small")),
            traceparent: (number % 3 == 0).then(|| format!("00-{number:032x}-{number:016x}-01")),
            headers: (number % 5 == 0).then(|| {
                json!([
                    ["empty", ""],
                    ["bytes", STANDARD.encode([0, 255, 128])],
                    ["number", STANDARD.encode(number.to_string())]
                ])
            }),
        })
        .collect()
}

/// Returns the headers that the contract promises for a row, built without the code of the product.
fn promised_headers(row: &OutboxRow) -> HeaderMap {
    if let Some(headers) = &row.headers {
        let pairs = headers.as_array().expect("an array").iter();
        return pairs
            .map(|pair| {
                let value = STANDARD.decode(pair[1].as_str().expect("text")).expect("base64");
                (pair[0].as_str().expect("text").to_owned(), value)
            })
            .collect();
    }
    let time = row.created_at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let id = row.event_id.to_string();
    let mut headers: HeaderMap = [
        ("ce_specversion", "1.0"),
        ("ce_id", &id),
        ("ce_type", row.event_type),
        ("ce_source", "/ledger"),
        ("ce_time", &time),
        ("content-type", "application/json"),
    ]
    .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
    .into();
    if let Some(traceparent) = &row.traceparent {
        headers.insert("traceparent".to_owned(), traceparent.clone().into_bytes());
    }
    headers
}

/// Returns the partition that Kafka's own Java producer chooses for each account.
async fn partitions_by_kafka(kafka: &Kafka, client: &rskafka::client::Client) -> BTreeMap<Vec<u8>, i32> {
    let topic = fresh_topic();
    rskafka_client::create_topic(client, &topic, PARTITIONS).await;
    let lines: String = (0..ACCOUNTS).map(|number| format!("{}:x\n", account(number))).collect();
    let arguments =
        ["--topic", &topic, "--property", "parse.key=true", "--property", "key.separator=:", "--sync"];
    kafka.tool_with_input(PRODUCER, &arguments, &lines).await;
    let mut partitions = BTreeMap::new();
    for partition in 0..PARTITIONS {
        for found in rskafka_client::read_all(client, &topic, partition).await {
            partitions.insert(found.record.key.expect("a key"), partition);
        }
    }
    assert_eq!(partitions.len(), ACCOUNTS);
    partitions
}

fn by_key(contents: impl Iterator<Item = Content>) -> BTreeMap<Option<Vec<u8>>, Vec<Content>> {
    let mut sorted: BTreeMap<Option<Vec<u8>>, Vec<Content>> = BTreeMap::new();
    contents.for_each(|content| sorted.entry(content.0.clone()).or_default().push(content));
    sorted
}

/// Seen to fail with an encoder and a decoder that both put the value before the key.
#[tokio::test]
async fn rskafka_reads_every_field_of_every_record_that_the_relay_published() {
    let Some(kafka) = Kafka::get() else { return };
    let client = rskafka_client::connect(&kafka.bootstrap_servers).await;
    let expected_partitions = partitions_by_kafka(kafka, &client).await;
    for (name, _) in Compression::ALL {
        let mut overrides = kafka.overrides().to_vec();
        overrides.push(("broker.kafka.compression", name));
        let stage = RelayStage::new(&overrides).await;
        let topic = fresh_topic();
        stage.broker.ensure_topics(&[TopicSpec::new(&topic, PARTITIONS)], true).await.expect("created");
        let rows = rows(&topic);
        let started = Utc::now() - TimeDelta::seconds(1);
        stage.outbox.insert(&rows).await;
        stage.drain().await;
        assert_eq!(stage.outbox.dead_letters().await, "");

        let mut found = Vec::new();
        for partition in 0..PARTITIONS {
            let records = rskafka_client::read_all(&client, &topic, partition).await;
            for (offset, read) in (0_i64..).zip(records) {
                let Record { key, value, headers, timestamp } = read.record;
                assert_eq!(read.offset, offset, "{name}");
                assert!(timestamp >= started && timestamp <= Utc::now(), "{name}: {timestamp}");
                let expected = match &key {
                    Some(key) => expected_partitions[key],
                    None => i32::from(lane_of(b"")) % PARTITIONS,
                };
                assert_eq!(partition, expected, "{name}: {key:?}");
                found.push((key, value, headers));
            }
        }
        let sent = rows.iter().map(|row| (row.key.clone(), row.value.clone(), promised_headers(row)));
        assert!(by_key(sent) == by_key(found.into_iter()), "{name}: other records, or in another order");
    }
}

/// Returns records of every shape that rskafka can write.
fn foreign_records() -> Vec<Record> {
    let at = DateTime::from_timestamp_millis(Utc::now().timestamp_millis()).expect("now");
    (0..60)
        .map(|number: i64| {
            let key = (number % 4 != 3).then(|| format!("key-{number}").into_bytes());
            let value = match number % 6 {
                0 => None,
                1 => Some(Vec::new()),
                2 => Some(random_bytes(20_000)),
                3 => Some(vec![b'y'; 50_000]),
                _ => Some(number.to_string().into_bytes()),
            };
            let headers = match number % 3 {
                0 => HeaderMap::new(),
                1 => [("empty".to_owned(), Vec::new()), ("name ü".to_owned(), vec![0, 255])].into(),
                _ => (0..number).map(|header| (format!("{header:03}"), random_bytes(200))).collect(),
            };
            Record { key, value, headers, timestamp: at + TimeDelta::milliseconds(number * 7 % 50) }
        })
        .collect()
}

#[tokio::test]
async fn every_field_of_every_record_that_rskafka_published_is_read() {
    let Some(kafka) = Kafka::get() else { return };
    let client = rskafka_client::connect(&kafka.bootstrap_servers).await;
    let database = TestDatabase::new().await;
    let config = database.config_with(&kafka.overrides());
    let broker = broker::connect(&config, database.pool()).await.expect("Kafka");
    let topic = fresh_topic();
    broker.ensure_topics(&[TopicSpec::new(&topic, 1)], true).await.expect("created");
    let mut sent = Vec::new();
    for (_, compression) in Compression::ALL {
        let records = foreign_records();
        rskafka_client::produce(&client, &topic, 0, records.clone(), compression).await;
        sent.extend(records);
    }
    let mut found: Vec<FetchedRecord> = Vec::new();
    while found.len() < sent.len() {
        let offset = i64::try_from(found.len()).expect("small");
        let fetched = broker.fetch(&topic, 0, offset, 1 << 20, std::time::Duration::from_secs(1)).await;
        let records = fetched.expect("read").records;
        assert!(!records.is_empty(), "{} of {} records", found.len(), sent.len());
        found.extend(records);
    }
    assert_eq!(found.len(), sent.len());
    for (offset, (found, sent)) in (0_i64..).zip(found.into_iter().zip(sent)) {
        assert_eq!(found.offset, offset);
        let sent = OutgoingRecord {
            key: sent.key.map(Into::into),
            value: sent.value.map(Into::into),
            headers: sent.headers.iter().collect::<Headers>(),
            timestamp: sent.timestamp,
        };
        let FetchedRecord { key, value, headers, timestamp, .. } = found;
        assert!(OutgoingRecord { key, value, headers, timestamp } == sent, "offset {offset}: {sent:?}");
    }
}

/// Returns the events of the outbox as records of another producer.
async fn events(database: &TestDatabase) -> Vec<Record> {
    let sql =
        "SELECT key, value, event_id::text, event_type, created_at FROM outbox WHERE topic = $1 ORDER BY id";
    let rows = database.client().await.query(sql, &[&TRANSACTIONS_TOPIC]).await.expect("rows");
    rows.iter()
        .map(|row| {
            let at = DateTime::<Utc>::from(row.get::<_, std::time::SystemTime>(4));
            let time = at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
            let headers = [
                ("ce_specversion", "1.0"),
                ("ce_id", row.get(2)),
                ("ce_type", row.get(3)),
                ("ce_source", "/ledger"),
                ("ce_time", &time),
                ("content-type", "application/json"),
            ];
            let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into();
            rskafka_client::record(row.get(0), row.get(1), headers, Utc::now())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn consume_risk_assesses_events_that_rskafka_published_with_every_compression() {
    let Some(system) = System::on_kafka().await else { return };
    let consumer = system.consumer(&[]);
    let client = rskafka_client::connect(&system.kafka().broker.address.to_string()).await;
    let per_compression = 40;
    let mut first = 0;
    for (name, compression) in Compression::ALL {
        system.post(first, per_compression, 8, |_| None).await;
        let mut by_partition: BTreeMap<i32, Vec<Record>> = BTreeMap::new();
        for record in events(&system.database).await {
            let partition = partition_of(record.key.as_deref().expect("a key"), PARTITIONS);
            by_partition.entry(partition).or_default().push(record);
        }
        for (partition, records) in by_partition {
            rskafka_client::produce(&client, TRANSACTIONS_TOPIC, partition, records, compression).await;
        }
        let published = "DELETE FROM outbox WHERE topic = 'transactions.v1'";
        system.database.client().await.batch_execute(published).await.expect("deleted");
        first += per_compression;
        eventually(&format!("{name}: all are assessed"), async || {
            system.count("risk_assessments").await == first
        })
        .await;
    }
    assert_eq!(system.count("dead_letters").await, 0);
    consumer.stop();
}
