//! The consumer does not query cached accounts again. Its guarantees hold for them as well.

use ledger::{
    broker::{FetchedRecord, OutgoingRecord},
    consume_risk::{RetriedRecord, StepOutcome, retry_record},
    event::partition_of,
    risk::{Ruleset, SHIPPED_RULES},
};

use super::{
    BREAKABLE,
    scene::{PARTITIONS, Scene},
};

/// Steps until the partition is idle.
async fn consume(consumer: &mut ledger::consume_risk::PartitionConsumer) {
    while consumer.run_once().await.expect("a step") != StepOutcome::Idle {}
}

/// Seen to fail when the currency of a cached account was not compared.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_cached_account_is_compared_with_the_ledger() {
    let scene = Scene::new().await;
    let records = scene.post(1, 8).await;
    let mut consumer = scene.consumer(partition_of(b"acct-0", PARTITIONS), SHIPPED_RULES, &[]).await;
    scene.publish(&records[..4]).await;
    consume(&mut consumer).await;
    let (account, next) = records[4].clone();
    let text = String::from_utf8(next.value.clone().expect("value").into()).expect("text");
    let forged = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        let mut record = next.clone();
        record.value = Some(text.replace(from, to).into());
        (account.clone(), record)
    };
    let other_amount = text.split("\"amount\":\"").nth(1).expect("an amount").split('"').next().expect("one");
    for record in [
        forged("\"currency\":\"EUR\"", "\"currency\":\"USD\""),
        forged(&format!("\"amount\":\"{other_amount}\""), "\"amount\":\"0.07\""),
        forged("\"account_seq\":5", "\"account_seq\":9"),
        forged("\"counterparty\":\"shop-", "\"counterparty\":\"shop-x"),
        forged("{", "{\"description\":\"other\","),
        forged("{", "{\"metadata\":{\"country\":\"DE\"},"),
        forged("{", "{\"reverses\":\"00000000-0000-0000-0000-000000000001\","),
    ] {
        scene.publish(&[record]).await;
        consume(&mut consumer).await;
    }
    scene.publish(&records[4..]).await;
    consume(&mut consumer).await;
    scene.assessed_exactly(8).await;
    let reasons = "SELECT string_agg(reason || ' ' || error, '; ' ORDER BY record_offset) FROM dead_letters";
    assert_eq!(
        scene.database.value(reasons).await,
        "differs_from_ledger currency differs from the ledger; \
         differs_from_ledger amount differs from the ledger; \
         not_in_ledger the ledger has no transaction 9 of account acct-0; \
         differs_from_ledger counterparty differs from the ledger; \
         differs_from_ledger description differs from the ledger; \
         differs_from_ledger metadata differs from the ledger; \
         differs_from_ledger reverses differs from the ledger"
    );
}

/// Two events get an assessment before the consumer reaches them: once a consumer that has their account in memory, and
/// once a new one that retries their records alone. It scores them again and finds their assessments when it writes.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_assessed_meanwhile_keeps_that_assessment() {
    for is_cached in [true, false] {
        let scene = Scene::new().await;
        let records = scene.post(1, 8).await;
        let partition = partition_of(b"acct-0", PARTITIONS);
        scene.publish(&records[..2]).await;
        let mut consumer = scene.consumer(partition, BREAKABLE, &[]).await;
        consume(&mut consumer).await;
        let other_rules = Ruleset::parse("[levels]\nmedium = 40\nhigh = 70\n").expect("valid");
        let mut connection = scene.database.connection().await;
        for (_, record) in &records[3..5] {
            let retried =
                retry_record(&mut connection, &other_rules, fetched(record)).await.expect("retried");
            let RetriedRecord::Assessed(assessment) = retried else { panic!("it has no assessment yet") };
            assert!(assessment.write(&mut connection).await.expect("written"));
        }
        scene.publish(&records[2..]).await;
        if !is_cached {
            scene.interrupt().await;
            let attempts = [("consume_risk.attempts_max", "1")];
            consumer = scene.consumer_on("one-by-one", partition, BREAKABLE, &attempts).await;
        }
        consume(&mut consumer).await;
        assert_eq!(scene.count("risk_assessments").await, 8);
        assert_eq!(
            scene.count("outbox WHERE topic = 'risk-assessments.v1'").await,
            8,
            "one RiskAssessed event each"
        );
        assert_eq!(scene.count("dead_letters").await, 0);
        let assessed_before = format!("risk_assessments WHERE ruleset = '{}'", other_rules.version());
        assert_eq!(scene.count(&assessed_before).await, 2);
    }
}

fn fetched(record: &OutgoingRecord) -> FetchedRecord {
    FetchedRecord {
        offset: 0,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
        timestamp: record.timestamp,
        leader_epoch: None,
    }
}

/// An event whose rules look back at no other row still has a row before it. Seen to fail when that row was not read:
/// every step gave the event neither a result nor a reason, and a retry of its dead letter reported it as assessed.
#[tokio::test(flavor = "multi_thread")]
async fn rules_that_look_back_at_no_row_work_after_a_restart() {
    const SHORT: &str = "history_rows = 1\n[levels]\nmedium = 1\nhigh = 2\n[features.seen]\naggregate = \"count\"\n\
        window = \"1h\"\n[[rules]]\nid = \"alone\"\nwhen = \"seen == 1\"\nscore = 1\nreason = \"{seen}\"\n";
    let scene = Scene::new().await;
    let records = scene.post(1, 3).await;
    let partition = partition_of(b"acct-0", PARTITIONS);
    scene.publish(&records[..2]).await;
    consume(&mut scene.consumer(partition, SHORT, &[]).await).await;
    scene.publish(&records[2..]).await;
    let mut connection = scene.database.connection().await;
    let ruleset = Ruleset::parse(SHORT).expect("valid");
    let retried = retry_record(&mut connection, &ruleset, fetched(&records[2].1)).await.expect("retried");
    assert!(matches!(retried, RetriedRecord::Assessed(_)), "it has no assessment yet");
    let mut restarted = scene.consumer_on("restarted", partition, SHORT, &[]).await;
    assert_eq!(restarted.run_once().await.expect("a step"), StepOutcome::Handled(1));
    consume(&mut restarted).await;
    scene.assessed_exactly(3).await;
    assert_eq!(
        scene.count("risk_assessments WHERE risk_score = 1").await,
        3,
        "each event counts only itself"
    );
}

/// A row that is missing in the ledger is reported at every step. No record is skipped or counted as handled.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_a_missing_row_is_reported_and_waited_for() {
    let scene = Scene::new().await;
    let records = scene.post(1, 3).await;
    let partition = partition_of(b"acct-0", PARTITIONS);
    scene.publish(&records[..1]).await;
    consume(&mut scene.consumer(partition, SHIPPED_RULES, &[]).await).await;
    let lost = "SET session_replication_role = replica; DELETE FROM transactions WHERE account_seq = 2";
    scene.database.client().await.batch_execute(lost).await.expect("lost");
    scene.publish(&records[2..]).await;
    let mut consumer = scene.consumer_on("restarted", partition, SHIPPED_RULES, &[]).await;
    for _ in 0..2 {
        let error = format!("{:#}", consumer.run_once().await.expect_err("reported"));
        assert!(error.contains("transaction 2 of acct-0 is missing"), "{error}");
    }
    let ruleset = Ruleset::parse(SHIPPED_RULES).expect("valid");
    let retried =
        retry_record(&mut scene.database.connection().await, &ruleset, fetched(&records[2].1)).await;
    assert!(retried.is_err(), "not treated as assessed");
    assert_eq!(scene.database.value("SELECT max(next_offset) FROM consumer_positions").await, "1");
    assert_eq!(scene.count("dead_letters").await, 0);
}
