//! The PostgreSQL broker deletes records by age and by size, but none that a consumer group has not handled, and reports
//! missing offsets as Kafka does.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ledger::{
    broker::{self, BrokerError, OffsetRange, OutgoingRecord, Retention, SharedBroker, TopicSpec},
    event::Headers,
    relay,
};

use crate::support::{eventually, postgres::TestDatabase};

const HOUR: Duration = Duration::from_secs(3600);

fn records(count: usize, at: DateTime<Utc>) -> Vec<OutgoingRecord> {
    let record = OutgoingRecord {
        key: Some("k".into()),
        value: Some(vec![b'v'; 99].into()),
        headers: Headers::default(),
        timestamp: at,
    };
    vec![record; count]
}

async fn topic(age: Option<Duration>, bytes: Option<u64>) -> (TestDatabase, SharedBroker, TopicSpec) {
    let database = TestDatabase::new().await;
    let broker = broker::connect(&database.config, database.pool()).await.expect("PostgreSQL");
    let spec = TopicSpec { retention: Retention { age, bytes }, ..TopicSpec::new("t", 1) };
    broker.ensure_topics(std::slice::from_ref(&spec), true).await.expect("created");
    (database, broker, spec)
}

/// Checks the counters of the partitions against their records.
async fn counts_right(database: &TestDatabase) {
    let difference = "SELECT sum(p.bytes) - (SELECT coalesce(sum(octet_length(key) + octet_length(value)), 0)
                                             FROM broker_records) FROM broker_partitions p";
    assert_eq!(database.value(difference).await, "0");
}

#[tokio::test]
async fn records_that_are_too_old_are_deleted_and_the_earliest_offset_rises() {
    let (database, broker, spec) = topic(Some(HOUR), None).await;
    // More records than one removal deletes.
    let old = Utc::now() - TimeDelta::hours(2);
    broker.produce("t", 0, records(7_000, old)).await.expect("published");
    broker.produce("t", 0, records(5, Utc::now())).await.expect("published");
    // A record after one that stays is not deleted, so the offsets have no gaps.
    broker.produce("t", 0, records(5, old)).await.expect("published");
    let topics = [spec];
    assert_eq!(broker.enforce_retention(&topics).await.expect("removed"), 7_000);
    assert_eq!(broker.enforce_retention(&topics).await.expect("nothing left"), 0);
    let range = broker.offset_range("t", 0).await.expect("a range");
    assert_eq!(range, OffsetRange { earliest: 7_000, latest: 7_010 });
    // A reader that is further behind gets an error and is not moved forward.
    let error = broker.fetch("t", 0, 6_999, 1 << 20, Duration::ZERO).await.expect_err("gone");
    assert!(
        matches!(error, BrokerError::OffsetOutOfRange { offset: 6_999, earliest: 7_000, latest: 7_010, .. }),
        "{error}"
    );
    let found = broker.fetch("t", 0, 7_000, 1 << 20, Duration::ZERO).await.expect("there");
    assert_eq!(found.records.len(), 10);
    counts_right(&database).await;
    // All records may be deleted, and the offsets continue.
    database
        .client()
        .await
        .batch_execute("UPDATE broker_records SET created_at = '-infinity'")
        .await
        .expect("aged");
    assert_eq!(broker.enforce_retention(&topics).await.expect("removed"), 10);
    broker.produce("t", 0, records(1, Utc::now())).await.expect("published");
    let range = broker.offset_range("t", 0).await.expect("a range");
    assert_eq!(range, OffsetRange { earliest: 7_010, latest: 7_011 });
    counts_right(&database).await;
}

#[tokio::test]
async fn records_beyond_the_size_limit_are_deleted_from_the_front() {
    let (database, broker, spec) = topic(None, Some(5_050)).await;
    broker.produce("t", 0, records(80, Utc::now())).await.expect("published");
    broker.produce("t", 0, records(20, Utc::now())).await.expect("published");
    // Each record has 100 bytes. Retention keeps at least the limit, and less than one record more.
    assert_eq!(broker.enforce_retention(&[spec]).await.expect("removed"), 49);
    assert_eq!(broker.offset_range("t", 0).await.expect("a range").earliest, 49);
    counts_right(&database).await;
}

#[tokio::test]
async fn records_that_a_group_has_not_handled_stay() {
    let (database, broker, spec) = topic(Some(HOUR), Some(1)).await;
    broker.produce("t", 0, records(10, Utc::now() - TimeDelta::hours(2))).await.expect("published");
    let client = database.client().await;
    let positions = "INSERT INTO consumer_positions (consumer_group, topic, partition, next_offset)
                     VALUES ('slow', 't', 0, 4), ('quick', 't', 0, 9), ('slow', 'other', 0, 0)";
    client.batch_execute(positions).await.expect("inserted");
    let topics = [spec];
    // Seen to fail when retention ignored the positions.
    assert_eq!(broker.enforce_retention(&topics).await.expect("removed"), 4);
    assert_eq!(broker.offset_range("t", 0).await.expect("a range").earliest, 4);
    client
        .batch_execute("DELETE FROM consumer_positions WHERE consumer_group = 'slow'")
        .await
        .expect("deleted");
    assert_eq!(broker.enforce_retention(&topics).await.expect("removed"), 5);
    assert_eq!(broker.offset_range("t", 0).await.expect("a range"), OffsetRange { earliest: 9, latest: 10 });
}

#[tokio::test]
async fn the_relay_enforces_retention() {
    let database = TestDatabase::new().await;
    let context = database.context_with(&[("broker.topics.transactions_retention", "1h")]);
    let broker = broker::connect(&context.config, database.pool()).await.expect("PostgreSQL");
    broker.ensure_topics(&broker::topic_specs(&context.config), true).await.expect("created");
    let old = records(10, Utc::now() - TimeDelta::hours(2));
    broker.produce("transactions.v1", 3, old.clone()).await.expect("published");
    broker.produce("risk-assessments.v1", 3, old).await.expect("published");
    let running = tokio::spawn(relay::run(context.clone()));
    eventually("the old records are gone", async || {
        broker.offset_range("transactions.v1", 3).await.expect("a range").earliest == 10
    })
    .await;
    context.stop.request();
    running.await.expect("no panic").expect("a clean stop");
    let range = broker.offset_range("risk-assessments.v1", 3).await.expect("a range");
    assert_eq!(range.earliest, 0, "assessments are kept for a week");
}
