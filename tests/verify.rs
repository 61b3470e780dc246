//! What `verify` promises: a system that is whole passes, also with everything in flight, and each invariant that is
//! broken on purpose is found by the check of that name.
//!
//! The breaks below are the planted bugs: each check has at least one, and would let it pass if it looked at nothing.

use std::time::Duration;

use ledger::{
    aggregate::{self, Scope},
    broker::{self, OutgoingRecord},
    consume_risk,
    domain::{AccountId, Amount, Currency, Decision, Direction, IdempotencyKey, Posting},
    event::{TRANSACTIONS_TOPIC, cloud_event_headers},
    ops::verify::{self, Args, Report},
    posting::{Request, post_locked},
    relay,
    runtime::Context,
};
use uuid::Uuid;

use crate::support::{binary, postgres::TestDatabase};

const ROWS: i64 = 60;
const OVERRIDES: [(&str, &str); 3] = [
    ("broker.topics.transactions_partitions", "2"),
    ("broker.topics.risk_assessments_partitions", "1"),
    ("broker.topics.dead_letters_partitions", "1"),
];

fn posting(account: &str, key: &str, minor: i64, reverses: Option<Uuid>) -> Posting {
    Posting {
        account_id: AccountId::parse(account).unwrap(),
        idempotency_key: IdempotencyKey::parse(key).unwrap(),
        direction: if minor < 0 { Direction::Debit } else { Direction::Credit },
        amount: Amount::from_minor(minor.abs()).unwrap(),
        currency: Currency::parse("EUR").unwrap(),
        counterparty: None,
        description: None,
        metadata: None,
        reverses,
        created_at: None,
    }
}

async fn post(database: &TestDatabase, posting: Posting) -> Uuid {
    let mut connection = database.connection().await;
    let group = [Request { posting: posting.into(), traceparent: None }];
    match post_locked(&mut connection, &group).await.unwrap().decisions.pop() {
        Some(Decision::Create(row)) => row.id,
        other => panic!("{other:?}"),
    }
}

/// Rows of five accounts, the last one a reversal.
async fn post_rows(database: &TestDatabase) {
    let mut first = None;
    for n in 0..ROWS - 1 {
        let minor = if n % 3 == 2 { -100 - n } else { 500 + n };
        let id = post(database, posting(&format!("acct-{}", n % 5), &format!("key-{n}"), minor, None)).await;
        first.get_or_insert(id);
    }
    post(database, posting("acct-0", "reversal", -500, first)).await;
}

async fn verify(database: &TestDatabase, wait: Option<Duration>) -> Report {
    let context = database.context_with(&OVERRIDES);
    verify::verify(&context, &Args { wait, ..Args::default() }).await.unwrap()
}

/// Relays and consumes until nothing is in flight.
async fn settle(database: &TestDatabase) -> Report {
    let contexts: Vec<Context> = (0..2).map(|_| database.context_with(&OVERRIDES)).collect();
    let relay = tokio::spawn(relay::run(contexts[0].clone()));
    let consumer = tokio::spawn(consume_risk::run(contexts[1].clone()));
    let report = verify(database, Some(Duration::from_secs(30))).await;
    contexts.iter().for_each(|context| context.stop.request());
    relay.await.unwrap().unwrap();
    consumer.await.unwrap().unwrap();
    report
}

async fn whole_system() -> TestDatabase {
    let database = TestDatabase::new().await;
    post_rows(&database).await;
    let report = settle(&database).await;
    assert!(report.is_fine(), "{report:#?}");
    aggregate::run_once(&database.context(), Scope::Touched).await.unwrap();
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_system_passes_and_every_check_has_looked_at_something() {
    let database = whole_system().await;
    poison(&database).await;
    assert!(settle(&database).await.is_fine());
    aggregate::run_once(&database.context(), Scope::Touched).await.unwrap();
    let report = verify(&database, Some(Duration::from_secs(1))).await;
    assert!(report.is_fine(), "{report:#?}");
    for check in &report.checks {
        let expected = if ["pending", "outbox"].contains(&check.name) { 0..1 } else { 1..1_000 };
        assert!(expected.contains(&check.checked), "{check:?}");
    }
    let transactions = report.check("sequences").unwrap().checked;
    assert_eq!((transactions, report.check("facts").unwrap().checked), (ROWS, ROWS));
    assert_eq!(report.check("handled").unwrap().checked, ROWS + 2);
    assert_eq!(report.check("dead letters").unwrap().checked, 2);
}

/// Two records that the consumer can only put aside: one undecodable, one of a row that is not there.
async fn poison(database: &TestDatabase) {
    let broker = broker::connect(&database.config, database.pool()).await.unwrap();
    let value = database
        .value(
            "SELECT convert_from(value, 'UTF8') FROM broker_records WHERE topic = 'transactions.v1' LIMIT 1",
        )
        .await;
    let stranger = value.replace("\"account_seq\":", "\"account_seq\":9");
    for value in [b"\xff".to_vec(), stranger.into_bytes()] {
        let record = OutgoingRecord {
            key: Some("acct-0".into()),
            value: Some(value.into()),
            headers: cloud_event_headers(Uuid::now_v7(), "TransactionCreated.v1", chrono::Utc::now(), None),
            timestamp: chrono::Utc::now(),
        };
        broker.produce(TRANSACTIONS_TOPIC, 0, vec![record]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_is_pending_and_only_a_wait_calls_it_a_difference() {
    let database = TestDatabase::new().await;
    post_rows(&database).await;
    let report = verify(&database, None).await;
    assert!(report.is_fine(), "{report:#?}");
    assert_eq!(report.check("pending").unwrap().checked, ROWS);
    assert!(report.check("facts").unwrap().note.as_ref().unwrap().contains("1 more wait"), "{report:#?}");
    let report = verify(&database, Some(Duration::from_millis(300))).await;
    assert_eq!(report.differing(), ["quiet", "pending"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_system_is_never_called_wrong() {
    let database = TestDatabase::new().await;
    let contexts: Vec<Context> = (0..3).map(|_| database.context_with(&OVERRIDES)).collect();
    let relay = tokio::spawn(relay::run(contexts[0].clone()));
    let consumer = tokio::spawn(consume_risk::run(contexts[1].clone()));
    let posting = tokio::spawn({
        let (mut connection, context) = (database.connection().await, contexts[2].clone());
        async move {
            for round in 0.. {
                if context.stop.is_requested() {
                    return round * 50;
                }
                let group: Vec<Request> = (0..50)
                    .map(|n| posting(&format!("acct-{}", n % 9), &format!("{round}-{n}"), 100, None))
                    .map(|posting| Request { posting: posting.into(), traceparent: None })
                    .collect();
                post_locked(&mut connection, &group).await.unwrap();
            }
            0
        }
    });
    for _ in 0..4 {
        aggregate::run_once(&database.context(), Scope::Touched).await.unwrap();
        let report = verify(&database, None).await;
        assert!(report.is_fine(), "{report:#?}");
    }
    contexts[2].stop.request();
    let posted: i64 = posting.await.unwrap();
    let report = verify(&database, Some(Duration::from_secs(30))).await;
    assert!(report.is_fine(), "{report:#?}");
    assert_eq!(report.check("sequences").unwrap().checked, posted);
    contexts.iter().for_each(|context| context.stop.request());
    relay.await.unwrap().unwrap();
    consumer.await.unwrap().unwrap();
}

/// What breaks, what mends it again, and the checks that must see it.
struct Break(&'static str, &'static str, &'static [&'static str]);

const LEDGER_BREAKS: [Break; 8] = [
    Break(
        "ALTER TABLE transactions DROP CONSTRAINT transactions_idempotency;
         UPDATE transactions SET idempotency_key = 'key-0' WHERE idempotency_key = 'key-5'",
        "UPDATE transactions SET idempotency_key = 'key-5' WHERE account_id = 'acct-0' AND account_seq = 2;
         ALTER TABLE transactions ADD CONSTRAINT transactions_idempotency UNIQUE (account_id, idempotency_key)",
        &["idempotency keys"],
    ),
    Break(
        "UPDATE transactions SET account_seq = 99 WHERE account_id = 'acct-1' AND account_seq = 12",
        "UPDATE transactions SET account_seq = 12 WHERE account_id = 'acct-1' AND account_seq = 99",
        &["sequences", "balances", "events", "assessments", "facts", "account days"],
    ),
    Break(
        "UPDATE transactions SET balance_after = balance_after + 1 WHERE account_id = 'acct-1' AND account_seq = 2",
        "UPDATE transactions SET balance_after = balance_after - 1 WHERE account_id = 'acct-1' AND account_seq = 2",
        &["sequences", "events", "facts"],
    ),
    Break(
        "UPDATE transactions SET created_at = created_at - interval '1 hour' WHERE account_id = 'acct-2' AND account_seq = 5",
        "UPDATE transactions SET created_at = created_at + interval '1 hour' WHERE account_id = 'acct-2' AND account_seq = 5",
        &["sequences", "facts"],
    ),
    Break(
        "UPDATE accounts SET balance = balance + 1 WHERE account_id = 'acct-3'",
        "UPDATE accounts SET balance = balance - 1 WHERE account_id = 'acct-3'",
        &["balances"],
    ),
    Break(
        "UPDATE accounts SET account_id = 'acct-x' WHERE account_id = 'acct-3'",
        "UPDATE accounts SET account_id = 'acct-3' WHERE account_id = 'acct-x'",
        &["balances", "facts", "account days"],
    ),
    Break(
        "UPDATE transactions SET reverses = (SELECT id FROM transactions WHERE account_id = 'acct-1' AND account_seq = 1)
           WHERE account_id = 'acct-1' AND account_seq = 2",
        "UPDATE transactions SET reverses = NULL WHERE account_id = 'acct-1'",
        &["reversals", "facts"],
    ),
    Break(
        "INSERT INTO outbox (lane, topic, key, value, event_id, event_type)
           VALUES (0, 'transactions.v1', 'x', 'x', gen_random_uuid(), 'TransactionCreated.v1')",
        "DELETE FROM outbox",
        &["outbox"],
    ),
];

const EVENT_BREAKS: [Break; 7] = [
    Break(
        "CREATE TABLE gone AS SELECT * FROM broker_records WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 3;
         DELETE FROM broker_records WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 3",
        "INSERT INTO broker_records SELECT * FROM gone; DROP TABLE gone",
        &["published"],
    ),
    Break(
        // The last records of a partition: nothing comes after them that would leave a gap.
        "CREATE TABLE gone AS SELECT * FROM broker_records WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset > 5;
         DELETE FROM broker_records WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset > 5",
        "INSERT INTO broker_records SELECT * FROM gone; DROP TABLE gone",
        &["published"],
    ),
    Break(
        "CREATE TABLE swapped AS SELECT array_agg(record_offset ORDER BY record_offset) AS o, min(partition) AS p
           FROM (SELECT * FROM broker_records WHERE topic = 'transactions.v1' AND key = 'acct-1' ORDER BY record_offset LIMIT 2) x;
         UPDATE broker_records SET record_offset = -1 FROM swapped WHERE topic = 'transactions.v1' AND partition = p AND record_offset = o[1];
         UPDATE broker_records SET record_offset = o[1] FROM swapped WHERE topic = 'transactions.v1' AND partition = p AND record_offset = o[2];
         UPDATE broker_records SET record_offset = o[2] FROM swapped WHERE topic = 'transactions.v1' AND partition = p AND record_offset = -1",
        "UPDATE broker_records SET record_offset = -1 FROM swapped WHERE topic = 'transactions.v1' AND partition = p AND record_offset = o[1];
         UPDATE broker_records SET record_offset = o[1] FROM swapped WHERE topic = 'transactions.v1' AND partition = p AND record_offset = o[2];
         UPDATE broker_records SET record_offset = o[2] FROM swapped WHERE topic = 'transactions.v1' AND partition = p AND record_offset = -1;
         DROP TABLE swapped",
        &["order"],
    ),
    Break(
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"amount\":\"5.00\"', '\"amount\":\"5.01\"'), 'UTF8')
           WHERE topic = 'transactions.v1'",
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"amount\":\"5.01\"', '\"amount\":\"5.00\"'), 'UTF8')
           WHERE topic = 'transactions.v1' AND key = 'acct-0'",
        &["events"],
    ),
    Break(
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"currency\":\"EUR\"', '\"currency\":\"USD\"'), 'UTF8')
           WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 1",
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"currency\":\"USD\"', '\"currency\":\"EUR\"'), 'UTF8')
           WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 1",
        &["events"],
    ),
    Break(
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"created_at\"', '\"description\":\"another\",\"created_at\"'), 'UTF8')
           WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 1",
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"description\":\"another\",\"created_at\"', '\"created_at\"'), 'UTF8')
           WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 1",
        &["events"],
    ),
    Break(
        "UPDATE broker_records SET value = value || '}' WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 0",
        "UPDATE broker_records SET value = substring(value FROM 1 FOR length(value) - 1)
           WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 0",
        &["handled", "published"],
    ),
];

const EFFECT_BREAKS: [Break; 10] = [
    Break(
        "CREATE TABLE gone AS SELECT * FROM risk_assessments WHERE account_id = 'acct-2' AND account_seq = 1;
         DELETE FROM risk_assessments WHERE account_id = 'acct-2' AND account_seq = 1",
        "INSERT INTO risk_assessments SELECT * FROM gone; DROP TABLE gone",
        &["handled", "pending", "announcements", "facts", "account days"],
    ),
    Break(
        "CREATE TABLE gone AS SELECT * FROM broker_records WHERE topic = 'risk-assessments.v1' AND record_offset = 3;
         DELETE FROM broker_records WHERE topic = 'risk-assessments.v1' AND record_offset = 3",
        "INSERT INTO broker_records SELECT * FROM gone; DROP TABLE gone",
        &["announcements"],
    ),
    Break(
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"low\"', '\"high\"'), 'UTF8')
           WHERE topic = 'risk-assessments.v1' AND record_offset = 5",
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"high\"', '\"low\"'), 'UTF8')
           WHERE topic = 'risk-assessments.v1' AND record_offset = 5",
        &["announcements"],
    ),
    Break(
        "INSERT INTO risk_assessments SELECT account_id, 777, gen_random_uuid(), risk_score, risk_level, reasons,
           shadow_reasons, ruleset FROM risk_assessments LIMIT 1",
        "DELETE FROM risk_assessments WHERE account_seq = 777",
        &["assessments"],
    ),
    Break(
        "ALTER TABLE risk_assessments DROP CONSTRAINT risk_assessments_pkey;
         INSERT INTO risk_assessments SELECT * FROM risk_assessments WHERE account_id = 'acct-2' AND account_seq = 1",
        "DELETE FROM risk_assessments WHERE ctid = (SELECT max(ctid) FROM risk_assessments WHERE account_id = 'acct-2' AND account_seq = 1);
         ALTER TABLE risk_assessments ADD PRIMARY KEY (account_id, account_seq)",
        &["assessments"],
    ),
    Break(
        "UPDATE consumer_positions SET next_offset = next_offset + 1000 WHERE partition = 1",
        "UPDATE consumer_positions SET next_offset = next_offset - 1000 WHERE partition = 1",
        &["positions"],
    ),
    Break(
        "INSERT INTO dead_letters VALUES (gen_random_uuid(), 'risk', 'transactions.v1', 0, 2, 'k', 'v', '[]', 'score',
           'rule_error', 'on purpose', 3, NULL)",
        "DELETE FROM dead_letters",
        &["dead letters"],
    ),
    Break(
        "UPDATE fact_transactions SET signed_amount = signed_amount + 0.0001 WHERE account_id = 'acct-4' AND account_seq = 1",
        "UPDATE fact_transactions SET signed_amount = signed_amount - 0.0001 WHERE account_id = 'acct-4' AND account_seq = 1",
        &["facts"],
    ),
    Break(
        "UPDATE fact_account_day SET closing_balance = closing_balance + 1 WHERE account_id = 'acct-4'",
        "UPDATE fact_account_day SET closing_balance = closing_balance - 1 WHERE account_id = 'acct-4'",
        &["account days"],
    ),
    Break(
        "INSERT INTO fact_account_day SELECT '1999-01-01', account_id, currency, 1, 1, 0, 1, 0, 0, 1, 0, NULL, 0
           FROM fact_account_day LIMIT 1",
        "DELETE FROM fact_account_day WHERE business_date = '1999-01-01'",
        &["account days"],
    ),
];

async fn each_break_is_found(breaks: &[Break]) {
    let database = whole_system().await;
    let client = database.client().await;
    // Past the triggers, as somebody who means harm would go.
    client.batch_execute("SET session_replication_role = replica").await.unwrap();
    for Break(broken, mended, expected) in breaks {
        client.batch_execute(broken).await.expect(broken);
        let report = verify(&database, None).await;
        for check in *expected {
            assert!(report.differing().contains(check), "{check} does not see: {broken}\n{report:#?}");
            assert!(!report.check(check).unwrap().examples.is_empty(), "{check} names none");
        }
        client.batch_execute(mended).await.expect(mended);
    }
    let report = verify(&database, None).await;
    assert!(report.is_fine(), "not all was mended: {report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_the_ledger_is_found() {
    each_break_is_found(&LEDGER_BREAKS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_the_topic_is_found() {
    each_break_is_found(&EVENT_BREAKS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_the_effects_is_found() {
    each_break_is_found(&EFFECT_BREAKS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_without_its_start_is_said_to_be_and_judged_from_there() {
    let database = whole_system().await;
    let client = database.client().await;
    client.batch_execute("DELETE FROM broker_records WHERE record_offset < 5").await.unwrap();
    let report = verify(&database, None).await;
    assert!(report.is_fine(), "{report:#?}");
    let note = report.check("published").unwrap().note.clone().unwrap();
    assert!(note.contains("retention removed the start of"), "{note}");
    client
        .batch_execute("DELETE FROM broker_records WHERE topic = 'transactions.v1' AND record_offset = 7")
        .await
        .unwrap();
    assert_eq!(verify(&database, None).await.differing(), ["published"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn announcements_that_retention_removed_are_not_missed_but_later_ones_are() {
    let database = whole_system().await;
    let client = database.client().await;
    // The first five were made long before the others, and are gone.
    let trimmed = "SET session_replication_role = replica;
        UPDATE risk_assessments r SET assessed_at = assessed_at - interval '2 hours' FROM broker_records b
        WHERE b.topic = 'risk-assessments.v1' AND b.record_offset < 5
          AND (convert_from(b.value, 'UTF8')::json ->> 'transaction_id')::uuid = r.transaction_id;
        UPDATE broker_records SET created_at = created_at - interval '1 hour' WHERE topic = 'risk-assessments.v1';
        DELETE FROM broker_records WHERE topic = 'risk-assessments.v1' AND record_offset < 5";
    client.batch_execute(trimmed).await.unwrap();
    let report = verify(&database, None).await;
    let check = report.check("announcements").unwrap();
    assert_eq!(check.differences, 0, "{report:#?}");
    assert!(check.note.as_ref().unwrap().contains("retention removed its start"), "{check:?}");
    client
        .batch_execute("DELETE FROM broker_records WHERE topic = 'risk-assessments.v1' AND record_offset = 7")
        .await
        .unwrap();
    let report = verify(&database, None).await;
    // Planted bug that this catches: judging nothing any more once a topic has lost its start.
    assert_eq!(report.check("announcements").unwrap().differences, 1, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_what_differs_and_fails() {
    let database = whole_system().await;
    let environment = [
        ("LEDGER_DATABASE__URL", database.url.as_str()),
        ("LEDGER_BROKER__TOPICS__TRANSACTIONS_PARTITIONS", "2"),
    ];
    let output = binary::run(&["verify"], &environment);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("nothing differs"), "{text}");
    database
        .client()
        .await
        .batch_execute("UPDATE accounts SET balance = 0 WHERE account_id = 'acct-1'")
        .await
        .unwrap();
    let output = binary::run(&["verify"], &environment);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("balances: 1 differ") && text.contains("account acct-1: balance 0"), "{text}");
    let output = binary::run(&["verify", "--output", "json"], &environment);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &json["ok"]), (Some(1), &serde_json::json!(false)));
    let balances =
        json["checks"].as_array().unwrap().iter().find(|check| check["name"] == "balances").unwrap();
    assert_eq!((&balances["status"], &balances["differences"]), (&"differs".into(), &1.into()));
}
