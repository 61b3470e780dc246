//! Another program publishes thousands of records into a partition, in front of events.

use std::time::{Duration, Instant};

use ledger::broker::OutgoingRecord;

use super::scene::Scene;
use crate::support::{eventually, system::dies};

/// Publishes ten events, `count` foreign records, and ten more events, all into one partition.
async fn publish(scene: &Scene, count: usize) {
    let events = scene.post(1, 20).await;
    let (account, event) = events[0].clone();
    let foreign = (0..count).map(|number| {
        let record = match number % 3 {
            0 => OutgoingRecord { value: Some(format!("line {number}").into()), ..event.clone() },
            1 => OutgoingRecord { key: None, ..event.clone() },
            _ => OutgoingRecord { headers: [("kind", "metric")].into(), ..event.clone() },
        };
        (account.clone(), record)
    });
    let foreign: Vec<(String, OutgoingRecord)> = foreign.collect();
    for part in [&events[..10], &foreign, &events[10..]] {
        scene.publish(part).await;
    }
}

async fn dead_lettered_once(scene: &Scene, count: usize) {
    scene.assessed_exactly(20).await;
    assert_eq!(scene.count("dead_letters").await, count);
    assert_eq!(scene.count("dead_letters WHERE stage = 'decode' AND attempts = 1").await, count);
    assert_eq!(scene.count("outbox WHERE topic = 'transactions.v1.dlq'").await, count);
}

/// Seen to fail when a foreign record was retried alone like any other record that fails: seven records a second.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_foreign_records_delay_the_events_behind_them_by_seconds() {
    const FOREIGN: usize = 10_000;
    let scene = Scene::new().await;
    publish(&scene, FOREIGN).await;
    let mut consumer = scene.binary(&[]);
    consumer.line_with("started");
    let started = Instant::now();
    // Several waits, because a debug build on a busy machine handles only a few hundred a second.
    for part in 1..=4 {
        let wanted = FOREIGN * part / 4;
        eventually("a part is dead-lettered", async || scene.count("dead_letters").await >= wanted).await;
    }
    scene.consumed().await;
    let elapsed = started.elapsed();
    eprintln!("{FOREIGN} foreign records in {elapsed:?}");
    dead_lettered_once(&scene, FOREIGN).await;
    consumer.terminate();
    let (_, stderr) = consumer.ended_within(Duration::from_secs(5));
    let lines: Vec<&str> = stderr.lines().filter(|line| line.contains("became dead letters")).collect();
    // One line for a burst, and a few more if a busy machine reads it in parts.
    let lines_max = 2 + usize::try_from(elapsed.as_secs()).expect("few");
    assert!(!lines.is_empty() && lines.len() <= lines_max, "{lines:#?}");
    assert!(lines[0].contains("first_offset=10") && lines[0].contains("no_key"), "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_dies_within_a_burst_dead_letters_each_record_once() {
    const FOREIGN: usize = 500;
    let small_batches = ("LEDGER_CONSUME_RISK__BATCH_SIZE_MAX", "20");
    let scene = Scene::new().await;
    publish(&scene, FOREIGN).await;
    for point in [
        "consume-risk/noted",
        "consume-risk/dead-lettering",
        "consume-risk/dead-lettering@3",
        "consume-risk/dead-lettered@2",
        "consume-risk/committed@3",
    ] {
        dies(scene.binary(&[small_batches, ("LEDGER_FAIL_POINT", point)]));
    }
    let consumer = scene.binary(&[small_batches]);
    scene.consumed().await;
    consumer.stop();
    dead_lettered_once(&scene, FOREIGN).await;
}
