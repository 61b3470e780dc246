//! `ledger consumers forget`: retention no longer waits for an abandoned group; a group with a live consumer is
//! refused.

use ledger::{
    broker::{Retention, TopicSpec},
    event::TRANSACTIONS_TOPIC,
};

use super::Stage;
use crate::support::{
    binary::{self, Binary},
    eventually,
};

/// Fails if the command ignores a live consumer, and if the dry run creates the leases that it reads.
#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_group_is_forgotten_and_a_live_one_is_refused() {
    let stage = Stage::with(TRANSACTIONS_TOPIC, &[]).await;
    stage.post(3).await;
    stage.publish(chrono::Utc::now()).await;
    let abandoned = "INSERT INTO consumer_positions (consumer_group, topic, partition, next_offset) VALUES ('old', 'transactions.v1', 0, 1)";
    stage.database.client().await.batch_execute(abandoned).await.expect("a position");
    let consumer = Binary::start(&["consume-risk"], &stage.environment());
    eventually("the records are consumed", async || {
        stage.count("consumer_positions WHERE consumer_group = 'risk' AND next_offset = 3").await == 1
    })
    .await;
    let retention = Retention { age: None, bytes: Some(1) };
    let spec = TopicSpec { retention, ..TopicSpec::new(TRANSACTIONS_TOPIC, 1) };
    let removed =
        async || stage.broker.enforce_retention(std::slice::from_ref(&spec)).await.expect("removed");
    assert_eq!(removed().await, 1, "the old group needs the other records");

    let stderr = stage.refused(&["forget", "risk"]);
    assert!(stderr.contains("consumer group risk is running, nothing was removed: stop "), "{stderr}");
    assert!(stage.refused(&["forget", "rsik"]).contains("there is no consumer group rsik"));
    let planned = stage.consumers(&["forget", "old", "--dry-run"]);
    assert_eq!((&planned["dry_run"], &planned["items"][0]["position"]), (&true.into(), &1.into()));
    assert_eq!(stage.count("consumer_positions").await, 2, "a dry run and a refused call delete nothing");
    assert_eq!(
        stage.count("leases WHERE name LIKE 'consume-risk/old/%'").await,
        0,
        "a dry run creates no lease"
    );

    assert_eq!(stage.consumers(&["forget", "old"])["items"][0]["partition"], 0);
    assert_eq!(
        stage.database.value("SELECT string_agg(consumer_group, ',') FROM consumer_positions").await,
        "risk"
    );
    assert!(
        stage.count("leases WHERE name = 'consume-risk/old/transactions.v1/0' AND epoch > 0").await == 1,
        "the lease was revoked"
    );
    assert!(removed().await >= 1, "no group needs the records");
    consumer.stop();
    let forgotten = binary::run(&["consumers", "forget", "risk"], &stage.environment());
    let stderr = String::from_utf8_lossy(&forgotten.stderr);
    assert!(
        forgotten.status.success() && stderr.contains("position removed") && stderr.contains('@'),
        "{stderr}"
    );
    assert_eq!(stage.count("consumer_positions").await, 0);
}
