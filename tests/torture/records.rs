//! Unwanted records: records published again, and records that are not events.

use std::time::Duration;

use chrono::Utc;
use ledger::{
    broker::{OutgoingRecord, SharedBroker},
    event::{RISK_ASSESSMENTS_TOPIC, TRANSACTIONS_DEAD_LETTER_TOPIC, TRANSACTIONS_TOPIC, partition_of},
};

const TOPICS: [&str; 3] = [TRANSACTIONS_TOPIC, RISK_ASSESSMENTS_TOPIC, TRANSACTIONS_DEAD_LETTER_TOPIC];
/// How many records of each partition are published again.
const TAIL_RECORDS: i64 = 100;
const TAIL_BYTES_MAX: usize = 200_000;
const MIDDLE_BYTES_MAX: usize = 20_000;

/// The partitions of `transactions.v1`.
const PARTITIONS: i32 = 6;

/// Publishes records from the middle of the hot partition again, as a late retry of a relay does.
pub async fn double_middle(broker: &SharedBroker) {
    let partition = partition_of(b"hot", PARTITIONS);
    let Ok(range) = broker.offset_range(TRANSACTIONS_TOPIC, partition).await else { return };
    publish_again(broker, TRANSACTIONS_TOPIC, partition, range.latest / 2, MIDDLE_BYTES_MAX).await;
}

/// Publishes the last records of every partition of all topics again.
pub async fn double_tails(broker: &SharedBroker) {
    for topic in TOPICS {
        let Ok(partitions) = broker.partitions(topic).await else { return };
        for partition in 0..partitions {
            let Ok(range) = broker.offset_range(topic, partition).await else { return };
            let from = range.earliest.max(range.latest - TAIL_RECORDS);
            if from < range.latest {
                publish_again(broker, topic, partition, from, TAIL_BYTES_MAX).await;
            }
        }
    }
}

async fn publish_again(broker: &SharedBroker, topic: &str, partition: i32, from: i64, bytes_max: usize) {
    let Ok(found) = broker.fetch(topic, partition, from, bytes_max, Duration::ZERO).await else { return };
    let again = found.records.into_iter().map(|record| OutgoingRecord {
        key: record.key,
        value: record.value,
        headers: record.headers,
        timestamp: record.timestamp,
    });
    // The audit counts the records in the topic, so an unknown outcome is fine.
    let _ = broker.produce(topic, partition, again.collect()).await;
}

/// Publishes a record that is not an event, with the key of the hot account.
pub async fn poison(broker: &SharedBroker) {
    let record = OutgoingRecord {
        key: Some("hot".into()),
        value: Some(b"\xff poison"[..].into()),
        headers: [("ce_type", "TransactionCreated.v1")].into(),
        timestamp: Utc::now(),
    };
    let _ = broker.produce(TRANSACTIONS_TOPIC, partition_of(b"hot", PARTITIONS), vec![record]).await;
}
