//! `ledger consumers forget`: a group that was given up holds nothing back any more; one that lives is left alone.

use ledger::{
    broker::{Retention, TopicSpec},
    event::TRANSACTIONS_TOPIC,
};

use super::Stage;
use crate::support::{
    binary::{self, Binary},
    eventually,
};

/// Seen to fail when nobody asked whether a consumer lives, and when the dry run made the leases that it looks at.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_forgotten_when_it_is_given_up_and_not_before() {
    let stage = Stage::with(TRANSACTIONS_TOPIC, &[]).await;
    stage.post(3).await;
    stage.publish(chrono::Utc::now()).await;
    let given_up = "INSERT INTO consumer_positions (consumer_group, topic, partition, next_offset) VALUES ('old', 'transactions.v1', 0, 1)";
    stage.database.client().await.batch_execute(given_up).await.expect("a position");
    let consumer = Binary::start(&["consume-risk"], &stage.environment());
    eventually("it is consumed", async || {
        stage.count("consumer_positions WHERE consumer_group = 'risk' AND next_offset = 3").await == 1
    })
    .await;
    let retention = Retention { age: None, bytes: Some(1) };
    let spec = TopicSpec { retention, ..TopicSpec::new(TRANSACTIONS_TOPIC, 1) };
    let removed =
        async || stage.broker.enforce_retention(std::slice::from_ref(&spec)).await.expect("removed");
    assert_eq!(removed().await, 1, "the old group keeps the others");

    let said = stage.refused(&["forget", "risk"]);
    assert!(said.contains("consumer group risk is running, nothing was removed: stop "), "{said}");
    assert!(stage.refused(&["forget", "rsik"]).contains("there is no consumer group rsik"));
    let foreseen = stage.consumers(&["forget", "old", "--dry-run"]);
    assert_eq!((&foreseen["dry_run"], &foreseen["items"][0]["position"]), (&true.into(), &1.into()));
    assert_eq!(stage.count("consumer_positions").await, 2, "a dry run and a refusal forget nothing");
    assert_eq!(
        stage.count("leases WHERE name LIKE 'consume-risk/old/%'").await,
        0,
        "nor does a dry run write"
    );

    assert_eq!(stage.consumers(&["forget", "old"])["items"][0]["partition"], 0);
    assert_eq!(
        stage.database.value("SELECT string_agg(consumer_group, ',') FROM consumer_positions").await,
        "risk"
    );
    assert!(
        stage.count("leases WHERE name = 'consume-risk/old/transactions.v1/0' AND epoch > 0").await == 1,
        "whoever had it has lost it"
    );
    assert!(removed().await >= 1, "nothing holds them any more");
    consumer.stop();
    let forgotten = binary::run(&["consumers", "forget", "risk"], &stage.environment());
    let stderr = String::from_utf8_lossy(&forgotten.stderr);
    assert!(
        forgotten.status.success() && stderr.contains("position removed") && stderr.contains('@'),
        "{stderr}"
    );
    assert_eq!(stage.count("consumer_positions").await, 0);
}
