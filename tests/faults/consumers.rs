//! Consumers that die or freeze between two steps, and records that end the process.

use chrono::Utc;
use ledger::{
    broker::{FetchedRecord, OutgoingRecord},
    event::{RISK_ASSESSMENTS_TOPIC, TRANSACTIONS_DEAD_LETTER_TOPIC, TRANSACTIONS_TOPIC},
};
use nix::sys::signal::Signal;

use crate::support::{
    binary::{Binary, get},
    eventually,
    system::{System, dies},
};

const PARTITIONS: i32 = 6;
const SMALL_BATCHES: (&str, &str) = ("LEDGER_CONSUME_RISK__BATCH_SIZE_MAX", "20");

/// Publishes all rows of the outbox.
async fn published(system: &System) {
    let relay = system.relay(&[]);
    eventually("the outbox is empty", async || system.count("outbox").await == 0).await;
    relay.stop();
}

async fn poison(system: &System, partitions: std::ops::Range<i32>) {
    let broker = system.broker().await;
    for partition in partitions {
        let record = OutgoingRecord {
            key: Some("acct-0".into()),
            value: Some("{poison".into()),
            headers: [("ce_type", "TransactionCreated.v1")].into(),
            timestamp: Utc::now(),
        };
        broker.produce(TRANSACTIONS_TOPIC, partition, vec![record]).await.expect("published");
    }
}

async fn reasons(system: &System) -> String {
    let sql = "SELECT coalesce(string_agg(reason || ':' || count, ' ' ORDER BY reason), '') FROM
               (SELECT reason, count(*) FROM dead_letters GROUP BY reason) AS r";
    system.database.value(sql).await
}

/// Seen to fail with this planted bug: the position moves in a commit of its own, before the results. A consumer that
/// dies at `consume-risk/writing` has then passed records without effect.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_dies_between_any_two_steps_gives_each_event_its_effect_once() {
    let system = System::on_postgres().await;
    // More attempts than deaths: three deaths can hit the attempts of one healthy record, which is then dead-lettered.
    let attempts = ("LEDGER_CONSUME_RISK__ATTEMPTS_MAX", "20");
    system.post(0, 600, 60, |_| None).await;
    published(&system).await;
    poison(&system, 0..PARTITIONS).await;
    system.post(600, 600, 60, |_| None).await;
    published(&system).await;
    for point in [
        "consume-risk/assessed@3",
        "consume-risk/writing@4",
        "consume-risk/committed@5",
        "consume-risk/scoring@90",
        "consume-risk/noted",
        "consume-risk/dead-lettering",
        "consume-risk/dead-lettered",
    ] {
        let before =
            system.database.value("SELECT coalesce(sum(next_offset), 0) FROM consumer_positions").await;
        dies(system.start("consume-risk", &[SMALL_BATCHES, attempts, ("LEDGER_FAIL_POINT", point)]));
        let after =
            system.database.value("SELECT coalesce(sum(next_offset), 0) FROM consumer_positions").await;
        let number = |text: &str| text.parse::<i64>().expect("a number");
        assert!(number(&after) >= number(&before), "no position moves back at {point}");
    }
    let (relay, consumer) = (system.relay(&[]), system.consumer(&[attempts]));
    system.is_whole().await;
    assert_eq!(system.count("risk_assessments").await, 1_200);
    assert_eq!(
        reasons(&system).await,
        format!("undecodable:{PARTITIONS}"),
        "no other record is dead-lettered"
    );
    relay.stop();
    consumer.stop();
}

/// Seen to fail with this planted bug: a commit that does not hold the lease. The rival is frozen before it moves the
/// position, so only the epoch shows that the partition is the rival's.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_freezes_before_its_commit_writes_nothing_when_it_thaws() {
    let system = System::on_postgres().await;
    system.post(0, 600, 1, |_| None).await;
    published(&system).await;
    let point = ("LEDGER_FAIL_POINT", "consume-risk/assessed@2:stop");
    let frozen = system.start("consume-risk", &[SMALL_BATCHES, point]);
    eventually("it freezes", async || frozen.is_frozen()).await;
    // The rival's leases outlast the test, so that the first consumer cannot get them back.
    let long = ("LEDGER_CONSUME_RISK__LEASE_TTL", "60s");
    let point = ("LEDGER_FAIL_POINT", "consume-risk/noted:stop");
    let rival = system.start("consume-risk", &[SMALL_BATCHES, long, point]);
    eventually("the rival takes over and freezes", async || rival.is_frozen()).await;
    let state = "SELECT (SELECT count(*) FROM risk_assessments) || ' ' || (SELECT max(next_offset) FROM consumer_positions)";
    let before = system.database.value(state).await;
    let log_length = frozen.stderr().len();
    frozen.signal(Signal::SIGCONT);
    eventually("the first consumer notices", async || {
        let since = frozen.stderr().split_off(log_length);
        ["the lease was lost", "held=0"].iter().any(|message| since.contains(message))
    })
    .await;
    frozen.stop();
    assert_eq!(system.database.value(state).await, before, "the first consumer writes nothing");
    rival.signal(Signal::SIGCONT);
    let relay = system.relay(&[]);
    system.is_whole().await;
    assert_eq!(system.count("risk_assessments").await, 600);
    assert_eq!(system.count("dead_letters").await, 0);
    for role in [rival, relay] {
        role.stop();
    }
}

/// One record ends the process each time it is scored, while the other partitions are at work.
///
/// Seen to fail when the attempts of the other partitions, which were noted when the process ended, counted against their
/// records.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_kills_the_process_is_the_only_dead_letter() {
    let system = System::on_postgres().await;
    system.post(0, 1_200, 60, |number| (number == 600).then_some("fatal")).await;
    published(&system).await;
    let mut deaths = 0;
    loop {
        let consumer: Binary = system
            .start("consume-risk", &[SMALL_BATCHES, ("LEDGER_FAIL_POINT", "consume-risk/scoring=fatal")]);
        eventually("it dies, or all is handled", async || {
            let handled = system.count("risk_assessments").await + system.count("dead_letters").await;
            consumer.has_ended() || handled == 1_200
        })
        .await;
        if !consumer.has_ended() {
            consumer.stop();
            break;
        }
        deaths += 1;
        assert!(deaths < 10, "the process dies again and again: {}", reasons(&system).await);
    }
    assert_eq!(reasons(&system).await, "process_ended:1");
    let fatal = "SELECT convert_from(value, 'UTF8')::json ->> 'description' FROM dead_letters";
    assert_eq!(system.database.value(fatal).await, "fatal");
    assert!(deaths >= 3, "{deaths}");
}

/// All records of the topics are delivered again, in their order; then new events follow.
///
/// Seen to fail with this planted bug: events for assessments that existed already.
#[tokio::test(flavor = "multi_thread")]
async fn every_record_of_all_topics_delivered_twice_changes_nothing() {
    let Some(system) = System::on_kafka().await else { return };
    let (relay, mut consumer) = (system.relay(&[]), system.consumer(&[SMALL_BATCHES]));
    let admin = consumer.field("admin");
    system.post(0, 600, 60, |_| None).await;
    poison(&system, 0..PARTITIONS).await;
    system.is_whole().await;
    let state = "SELECT md5(string_agg(r::text, '|' ORDER BY r::text)) FROM risk_assessments r WHERE account_seq <= 10";
    let before = system.database.value(state).await;
    let is_event = |record: &FetchedRecord| record.value.as_deref() != Some(b"{poison");
    let mut again = 0;
    for topic in [TRANSACTIONS_TOPIC, RISK_ASSESSMENTS_TOPIC] {
        again += system.publish_again(topic, is_event).await;
    }
    assert_eq!(again, 1_200);
    assert_eq!(system.publish_again(TRANSACTIONS_DEAD_LETTER_TOPIC, |_| true).await, 6);
    system.post(600, 300, 60, |_| None).await;
    eventually("all are assessed", async || system.count("risk_assessments").await == 900).await;
    system.is_whole().await;
    assert_eq!(system.audit().await.duplicates, 600);
    let (_, metrics) = get(&admin, "/metrics").expect("metrics");
    assert!(metrics.contains("ledger_consumer_events_total{outcome=\"duplicate\"} 600"), "{metrics}");
    assert_eq!(system.database.value(state).await, before);
    assert_eq!(reasons(&system).await, format!("undecodable:{PARTITIONS}"));
    for role in [relay, consumer] {
        role.stop();
    }
}

/// Another program's Kafka transaction ends with a marker, which has an offset and is not a record.
///
/// Seen to fail with this planted bug: only records move the position, so that the lag never becomes 0 when the
/// partition ends with a marker.
#[tokio::test(flavor = "multi_thread")]
async fn the_position_passes_the_markers_of_another_programs_transactions() {
    let Some(system) = System::on_kafka().await else { return };
    system.post(0, 60, 30, |_| None).await;
    published(&system).await;
    let consumer = system.consumer(&[("LEDGER_CONSUME_RISK__ATTEMPTS_MAX", "1")]);
    system.kafka().broker.write_in_a_transaction(TRANSACTIONS_TOPIC, 3).await;
    let broker = system.broker().await;
    let mut end = 0;
    for partition in 0..PARTITIONS {
        end += broker.offset_range(TRANSACTIONS_TOPIC, partition).await.expect("a range").latest;
    }
    assert!(end > 60 + 3, "{end}: there is a marker");
    let position = "SELECT coalesce(sum(next_offset), 0) FROM consumer_positions";
    eventually("the position has passed the marker", async || {
        system.database.value(position).await == end.to_string()
    })
    .await;
    assert_eq!(reasons(&system).await, "unknown_type:3");
    let relay = system.relay(&[]);
    system.is_whole().await;
    for role in [relay, consumer] {
        role.stop();
    }
}
