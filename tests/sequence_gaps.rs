//! Events that the topic lost are noticed by the gap that they leave in the `account_seq` of their account.

use std::time::Duration;

use chrono::Utc;
use ledger::{broker::OutgoingRecord, event::TRANSACTIONS_TOPIC};

use crate::{
    consume_risk::scene::Scene,
    support::{binary::get, eventually, system::System},
};

const CONFIGS: &str = "kafka.admin.ConfigCommand";

fn gaps(admin: &str) -> Option<u64> {
    let (_, metrics) = get(admin, "/metrics")?;
    let line = metrics.lines().find(|line| line.starts_with("ledger_consumer_sequence_gaps_total"))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// One account is in the consumer's memory when its event is missing, one is read from the ledger by a new process. A
/// dead letter is no gap.
///
/// Seen to fail with a check of the accounts in memory only.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_missing_before_another_is_counted_once() {
    let scene = Scene::new().await;
    let records = scene.post(2, 40).await;
    let of =
        |account: &str| -> Vec<_> { records.iter().filter(|(key, _)| key == account).cloned().collect() };
    let (first, second) = (of("acct-0"), of("acct-1"));
    scene.publish(&first[..5]).await;
    let assessed = async |count| {
        eventually("assessed", async || scene.count("risk_assessments").await == count).await;
    };
    let mut consumer = scene.binary(&[]);
    let admin = consumer.field("admin");
    assessed(5).await;
    // The sixth event is missing while the account is in memory.
    scene.publish(&first[6..10]).await;
    scene.publish(&second[..3]).await;
    assessed(12).await;
    eventually("counted", async || gaps(&admin) == Some(1)).await;
    consumer.line_with("the transaction before this one was never delivered");
    consumer.stop();

    // The fourth event is a dead letter, and the sixth is missing. The seventh comes to a process that has just started.
    let dead = "INSERT INTO dead_letters (id, consumer_group, topic, partition, record_offset, headers, stage, reason, error,
                                   attempts, event_id)
         SELECT gen_random_uuid(), 'risk', 'transactions.v1', 0, 999, '[]', 's', 'r', 'e', 3, id
         FROM transactions WHERE account_id = 'acct-1' AND account_seq = 4";
    scene.database.client().await.batch_execute(dead).await.expect("inserted");
    let mut consumer = scene.binary(&[]);
    let admin = consumer.field("admin");
    scene.publish(&second[4..5]).await;
    assessed(13).await;
    assert_eq!(gaps(&admin), Some(0), "a dead letter was delivered");
    consumer.stop();
    let mut consumer = scene.binary(&[]);
    let admin = consumer.field("admin");
    scene.publish(&second[6..]).await;
    assessed(27).await;
    eventually("counted", async || gaps(&admin) == Some(1)).await;
    // The missing events come after all: they are assessed, and no new gap appears.
    scene.publish(&second[5..6]).await;
    scene.publish(&first[5..6]).await;
    assessed(29).await;
    scene.publish(&first[10..]).await;
    assessed(39).await;
    assert_eq!(gaps(&admin), Some(1));
    consumer.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_is_refused_and_the_events_that_it_lost_are_counted() {
    let Some(system) = System::on_kafka().await else { return };
    let kafka = &system.kafka().broker;
    let set = async |entity: &[&str], settings: &str| {
        kafka.tool(CONFIGS, &[&["--alter"], entity, &["--add-config", settings]].concat()).await;
    };
    // The cleaner finishes a pause of 15 s before it looks at this.
    set(&["--entity-type", "brokers", "--entity-default"], "log.cleaner.backoff.ms=200").await;
    let relay = system.relay(&[]);
    system.post(0, 300, 30, |_| None).await;
    eventually("all are published", async || system.count("outbox").await == 0).await;
    relay.stop();

    let topic = ["--entity-type", "topics", "--entity-name", TRANSACTIONS_TOPIC];
    let compact = "cleanup.policy=compact,segment.ms=100,min.cleanable.dirty.ratio=0.01";
    set(&topic, compact).await;
    for role in ["relay", "consume-risk"] {
        let refused = system.run(&[role]);
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{role}: {stderr}");
        assert!(stderr.contains("topic transactions.v1 has cleanup.policy=compact,"), "{role}: {stderr}");
        assert!(stderr.contains("--add-config cleanup.policy=delete"), "{role}: {stderr}");
    }
    let listed = system.run(&["topics"]);
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.contains("transactions.v1: cleanup.policy is compact, configured delete"), "{listed}");
    assert!(listed.contains("ledger republish --missing"), "{listed}");

    // The last event of each account once more, in a new segment. Only then does Kafka compact the old one.
    let broker = system.broker().await;
    let read = async |partition| {
        let wait = Duration::ZERO;
        broker.fetch(TRANSACTIONS_TOPIC, partition, 0, 1 << 20, wait).await.expect("read").records
    };
    for partition in 0..6 {
        let mut last = read(partition).await;
        last.retain(|record| {
            let value = record.value.as_deref().unwrap_or_default();
            String::from_utf8_lossy(value).contains("\"account_seq\":10,")
        });
        let again = last.into_iter().map(|record| OutgoingRecord {
            key: record.key,
            value: record.value,
            headers: record.headers,
            timestamp: Utc::now(),
        });
        broker.produce(TRANSACTIONS_TOPIC, partition, again.collect()).await.expect("published");
    }
    eventually("the topic is compacted", async || {
        let mut left = 0;
        for partition in 0..6 {
            left += read(partition).await.len();
        }
        left <= 40
    })
    .await;
    set(&topic, "cleanup.policy=delete").await;
    let mut consumer = system.consumer(&[]);
    let admin = consumer.field("admin");
    eventually("the events that are left are assessed", async || {
        system.count("risk_assessments WHERE account_seq = 10").await == 30
    })
    .await;
    let lost = 300 - system.count("risk_assessments").await;
    assert!(lost > 200, "{lost} events were lost");
    eventually("all accounts are counted", async || gaps(&admin) >= Some(25)).await;
    consumer.line_with("the transaction before this one was never delivered");
    consumer.stop();
}
