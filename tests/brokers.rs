//! The guarantees of every broker, tested on both: the PostgreSQL table and a real Kafka.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use ledger::broker::{self, BrokerError, KafkaBroker, OffsetRange, OutgoingRecord, SharedBroker, TopicSpec};

use crate::support::{DEADLINE, kafka::Kafka, postgres::TestDatabase, proxy::Proxy};

const WAIT: Duration = Duration::from_millis(200);
const PLENTY: usize = 1 << 20;

/// Connects to both brokers. The PostgreSQL broker is in the returned database.
async fn brokers() -> (TestDatabase, Vec<SharedBroker>) {
    let database = TestDatabase::new().await;
    let mut brokers = vec![broker::connect(&database.config, database.pool()).await.expect("PostgreSQL")];
    if let Some(kafka) = Kafka::get() {
        let config = database.config_with(&kafka.overrides());
        brokers.push(broker::connect(&config, database.pool()).await.expect("Kafka"));
    }
    (database, brokers)
}

fn fresh(partitions: i32) -> TopicSpec {
    let name = format!("test-{}", uuid::Uuid::new_v4().simple());
    TopicSpec::new(name, partitions)
}

async fn topic(broker: &SharedBroker, partitions: i32) -> String {
    let topic = fresh(partitions);
    broker.ensure_topics(std::slice::from_ref(&topic), true).await.expect("created");
    topic.name
}

fn record(key: &str, value: &str) -> OutgoingRecord {
    OutgoingRecord {
        key: Some(key.to_owned().into()),
        value: Some(value.to_owned().into()),
        headers: [("ce_id", "1")].into(),
        timestamp: now(),
    }
}

/// Returns the time in milliseconds, the precision that Kafka keeps.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(Utc::now().timestamp_millis()).expect("now")
}

#[tokio::test]
async fn records_are_read_in_order_with_every_byte() {
    let (_database, brokers) = brokers().await;
    for broker in brokers {
        let topic = topic(&broker, 2).await;
        let odd = OutgoingRecord {
            key: None,
            value: None,
            headers: [("b", &[0, 255][..]), ("a", b""), ("b", b"again")].into(),
            timestamp: now(),
        };
        let sent = vec![record("k", "one"), odd, record("k", "{\"ü\": 1}")];
        broker.produce(&topic, 1, sent.clone()).await.expect("published");
        broker.produce(&topic, 1, vec![record("k", "four")]).await.expect("published");
        let found = broker.fetch(&topic, 1, 0, PLENTY, WAIT).await.expect("read");
        assert_eq!(found.high_watermark, 4);
        assert_eq!(found.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [0, 1, 2, 3]);
        for (sent, found) in sent.iter().zip(&found.records) {
            let found = OutgoingRecord {
                key: found.key.clone(),
                value: found.value.clone(),
                headers: found.headers.clone(),
                timestamp: found.timestamp,
            };
            assert_eq!(*sent, found);
        }
        let later = broker.fetch(&topic, 1, 2, PLENTY, WAIT).await.expect("read");
        assert_eq!(later.records.first().map(|record| record.offset), Some(2));
        assert_eq!(
            broker.offset_range(&topic, 1).await.expect("range"),
            OffsetRange { earliest: 0, latest: 4 }
        );
        assert_eq!(
            broker.offset_range(&topic, 0).await.expect("range"),
            OffsetRange { earliest: 0, latest: 0 }
        );
    }
}

#[tokio::test]
async fn a_fetch_at_the_end_waits_for_records_and_a_fetch_beyond_it_is_refused() {
    let (_database, brokers) = brokers().await;
    for broker in brokers {
        let topic = topic(&broker, 1).await;
        let started = Instant::now();
        let nothing = broker.fetch(&topic, 0, 0, PLENTY, WAIT).await.expect("nothing yet");
        assert!(nothing.records.is_empty() && nothing.high_watermark == 0);
        assert!(started.elapsed() >= WAIT, "{:?}", started.elapsed());

        let publish = async {
            tokio::time::sleep(WAIT).await;
            broker.produce(&topic, 0, vec![record("k", "v")]).await.expect("published");
        };
        let started = Instant::now();
        let (found, ()) = tokio::join!(broker.fetch(&topic, 0, 0, PLENTY, WAIT * 50), publish);
        assert_eq!(found.expect("read").records.len(), 1);
        assert!(started.elapsed() < WAIT * 25, "the fetch waited too long: {:?}", started.elapsed());

        let error = broker.fetch(&topic, 0, 7, PLENTY, WAIT).await.expect_err("beyond the end");
        assert!(
            matches!(&error, BrokerError::OffsetOutOfRange { offset: 7, earliest: 0, latest: 1, .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_fetch_is_bounded_in_bytes_and_returns_at_least_one_record() {
    let (_database, brokers) = brokers().await;
    for broker in brokers {
        let topic = topic(&broker, 1).await;
        // Random, because a broker counts the compressed bytes.
        let large: String = (0..600).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
        for _ in 0..10 {
            broker.produce(&topic, 0, vec![record("k", &large)]).await.expect("published");
        }
        let some = broker.fetch(&topic, 0, 0, 50_000, WAIT).await.expect("read");
        assert!((1..10).contains(&some.records.len()), "{}", some.records.len());
        let one = broker.fetch(&topic, 0, 3, 10, WAIT).await.expect("read");
        assert_eq!(one.records.first().map(|record| record.offset), Some(3));
    }
}

#[tokio::test]
async fn topics_are_created_only_on_request_and_refused_with_too_few_partitions() {
    let (_database, brokers) = brokers().await;
    for broker in brokers {
        let spec = fresh(3);
        let error =
            broker.ensure_topics(std::slice::from_ref(&spec), false).await.expect_err("no such topic");
        assert!(matches!(&error, BrokerError::NoSuchTopic(name) if *name == spec.name), "{error}");
        assert!(broker.partitions(&spec.name).await.is_err());
        for create in [true, true, false] {
            broker.ensure_topics(std::slice::from_ref(&spec), create).await.expect("the topic exists");
        }
        assert_eq!(broker.partitions(&spec.name).await.expect("known"), 3);
        let more = TopicSpec { partitions: 4, ..spec.clone() };
        let error = broker.ensure_topics(&[more], true).await.expect_err("too few");
        assert!(matches!(error, BrokerError::TooFewPartitions { actual: 3, expected: 4, .. }), "{error}");
        let fewer = TopicSpec { partitions: 2, ..spec };
        broker.ensure_topics(&[fewer], true).await.expect("more partitions are accepted");
        let error =
            broker.produce("never-created", 0, vec![record("k", "v")]).await.expect_err("no such topic");
        assert!(matches!(error, BrokerError::NoSuchTopic(_)), "{error}");
    }
}

#[tokio::test]
async fn a_reader_beside_many_writers_skips_no_record() {
    let (_database, brokers) = brokers().await;
    for broker in brokers {
        let topic = Arc::new(topic(&broker, 1).await);
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (broker, topic) = (Arc::clone(&broker), Arc::clone(&topic));
                tokio::spawn(async move {
                    for number in 0..25 {
                        let records =
                            (0..3).map(|part| record(&writer.to_string(), &format!("{number}.{part}")));
                        broker.produce(&topic, 0, records.collect()).await.expect("published");
                    }
                })
            })
            .collect();
        let mut next = 0;
        while next < 300 {
            let found = broker.fetch(&topic, 0, next, 2_000, WAIT * 10).await.expect("read");
            for record in found.records {
                assert_eq!(record.offset, next, "a gap");
                next += 1;
            }
        }
        for writer in writers {
            writer.await.expect("no panic");
        }
    }
}

#[tokio::test]
async fn kafka_refuses_a_record_that_is_too_large() {
    let Some(kafka) = Kafka::get() else { return };
    let database = TestDatabase::new().await;
    // A compressed record would fit.
    let mut overrides = kafka.overrides().to_vec();
    overrides.push(("broker.kafka.compression", "none"));
    let broker = broker::connect(&database.config_with(&overrides), database.pool()).await.expect("Kafka");
    let topic = topic(&broker, 1).await;
    let huge = record("k", &"x".repeat(2 << 20));
    let error = broker.produce(&topic, 0, vec![record("k", "small"), huge]).await.expect_err("too large");
    assert!(matches!(error, BrokerError::RecordTooLarge), "{error}");
    broker.produce(&topic, 0, vec![record("k", "small")]).await.expect("the next record is accepted");
}

#[tokio::test]
async fn kafka_accepts_every_compression() {
    let Some(kafka) = Kafka::get() else { return };
    let database = TestDatabase::new().await;
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let mut overrides = kafka.overrides().to_vec();
        overrides.push(("broker.kafka.compression", compression));
        let broker =
            broker::connect(&database.config_with(&overrides), database.pool()).await.expect("Kafka");
        let topic = topic(&broker, 1).await;
        let records = (0..100).map(|number| record("k", &format!("value {number}"))).collect();
        broker.produce(&topic, 0, records).await.expect(compression);
        let found = broker.fetch(&topic, 0, 0, PLENTY, WAIT).await.expect(compression);
        assert_eq!(found.records[99].value.as_deref(), Some(b"value 99".as_slice()), "{compression}");
    }
}

#[tokio::test]
async fn a_silent_server_and_a_closed_port_are_reported_within_the_time_limit() {
    let database = TestDatabase::new().await;
    let hole = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let silent = hole.local_addr().expect("address").to_string();
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let refusing = closed.local_addr().expect("address").to_string();
    drop(closed);
    for servers in [silent, refusing] {
        let config = database.config_with(&[
            ("broker.kind", "kafka"),
            ("broker.kafka.bootstrap_servers", &servers),
            ("broker.kafka.connect_timeout", "1s"),
        ]);
        let started = Instant::now();
        // Seen to fail without the time limit: `connect` waited for the silent server for ever.
        let error = KafkaBroker::connect(&config.broker.kafka).await.err().expect("no broker");
        assert!(started.elapsed() < DEADLINE, "{:?}", started.elapsed());
        assert!(error.is_transient() && error.to_string().contains(&servers), "{error}");
    }
}

#[tokio::test]
async fn a_silent_bootstrap_server_leaves_time_for_the_next_one() {
    let Some(kafka) = Kafka::get() else { return };
    let database = TestDatabase::new().await;
    let hole = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let silent = hole.local_addr().expect("address");
    let config = database.config_with(&[
        ("broker.kind", "kafka"),
        ("broker.kafka.bootstrap_servers", &format!("{silent},{}", kafka.bootstrap_servers)),
        ("broker.kafka.connect_timeout", "4s"),
    ]);
    // Seen to fail with one time limit for the whole list, which the first server used up.
    let broker = broker::connect(&config, database.pool()).await.expect("the second server answers");
    let topic = topic(&broker, 1).await;
    broker.produce(&topic, 0, vec![record("k", "v")]).await.expect("published");
}

#[tokio::test]
async fn a_broker_that_stops_answering_is_reported_within_the_time_limit_and_used_again_later() {
    let Some(kafka) = Kafka::get() else { return };
    let database = TestDatabase::new().await;
    let proxy = Proxy::start(kafka.bootstrap_servers.parse().expect("an address")).await;
    let servers = proxy.address.to_string();
    let config = database.config_with(&[
        ("broker.kind", "kafka"),
        ("broker.kafka.bootstrap_servers", &servers),
        ("broker.kafka.request_timeout", "2s"),
    ]);
    let broker = broker::connect(&config, database.pool()).await.expect("Kafka");
    let topic = topic(&broker, 1).await;
    broker.produce(&topic, 0, vec![record("k", "1")]).await.expect("published");
    broker.fetch(&topic, 0, 0, PLENTY, WAIT).await.expect("read");
    proxy.swallow(true);
    // Seen to fail without the time limit of each call: they never returned.
    let started = Instant::now();
    let outcomes = tokio::join!(
        broker.produce(&topic, 0, vec![record("k", "2")]),
        broker.fetch(&topic, 0, 1, PLENTY, WAIT),
        broker.offset_range(&topic, 0),
    );
    assert!(started.elapsed() < DEADLINE, "{:?}", started.elapsed());
    assert!(outcomes.0.is_err_and(|error| error.is_transient()));
    assert!(outcomes.1.is_err_and(|error| error.is_transient()));
    assert!(outcomes.2.is_err_and(|error| error.is_transient()));
    proxy.swallow(false);
    crate::support::eventually("publishing works again", async || {
        broker.produce(&topic, 0, vec![record("k", "3")]).await.is_ok()
    })
    .await;
    proxy.cut();
    crate::support::eventually("fetching works again after all connections were closed", async || {
        broker.fetch(&topic, 0, 1, PLENTY, WAIT).await.is_ok_and(|found| !found.records.is_empty())
    })
    .await;
}

#[tokio::test]
async fn kafkas_own_tools_show_the_positions() {
    let Some(kafka) = Kafka::get() else { return };
    let database = TestDatabase::new().await;
    let config = database.config_with(&kafka.overrides());
    let broker = broker::connect(&config, database.pool()).await.expect("Kafka");
    let topic = topic(&broker, 2).await;
    broker
        .produce(&topic, 1, vec![record("k", "1"), record("k", "2"), record("k", "3")])
        .await
        .expect("sent");
    let group = format!("group-of-{topic}");
    // A broker that has just started may still be creating its topic of positions.
    crate::support::eventually("positions are committed", async || {
        broker.mirror_positions(&group, &topic, &[(0, 0), (1, 2)]).await.is_ok()
    })
    .await;
    let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    let output = kafka.tool(class, &["--describe", "--group", &group]).await;
    let line = output.lines().find(|line| line.split_whitespace().nth(2) == Some("1")).expect(&output);
    let fields: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(
        fields[..6],
        [group.as_str(), &topic, "1", "2", "3", "1"],
        "group, topic, partition, offset, end, lag"
    );
}
