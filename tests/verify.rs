//! `ledger verify`: an intact system passes, also with events in flight, and the check of each invariant finds a
//! violation of it.
//!
//! The violations below are the planted bugs. Each check has at least one, so a check that compares nothing fails here.

use std::{path::PathBuf, time::Duration};

use ledger::{
    aggregate::{self, Scope},
    broker::{self, OutgoingRecord},
    consume_risk,
    domain::{AccountId, Amount, Currency, Decision, Direction, IdempotencyKey, Posting},
    event::{TRANSACTIONS_TOPIC, cloud_event_headers},
    ops::verify::{self, Args, Report},
    posting::{Request, post_locked},
    relay,
    repository::verification::Example,
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

/// Posts to five accounts; the last transaction is a reversal.
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
    settle_with(database, &[]).await
}

/// Does so with more settings.
async fn settle_with(database: &TestDatabase, settings: &[(&str, &str)]) -> Report {
    let overrides: Vec<(&str, &str)> = OVERRIDES.iter().chain(settings).copied().collect();
    let contexts: Vec<Context> = (0..2).map(|_| database.context_with(&overrides)).collect();
    let relay = tokio::spawn(relay::run(contexts[0].clone()));
    let consumer = tokio::spawn(consume_risk::run(contexts[1].clone()));
    let report = verify(database, Some(Duration::from_secs(30))).await;
    contexts.iter().for_each(|context| context.stop.request());
    relay.await.unwrap().unwrap();
    consumer.await.unwrap().unwrap();
    report
}

async fn intact_system() -> TestDatabase {
    let database = TestDatabase::new().await;
    post_rows(&database).await;
    let report = settle(&database).await;
    assert!(report.is_fine(), "{report:#?}");
    aggregate::run_once(&database.context(), Scope::Touched).await.unwrap();
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intact_system_passes_and_every_check_has_compared_something() {
    let database = intact_system().await;
    publish_poison_records(&database).await;
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

/// Publishes two records that the consumer must dead-letter: one that cannot be decoded, one without a transaction.
async fn publish_poison_records(database: &TestDatabase) {
    let broker = broker::connect(&database.config, database.pool()).await.unwrap();
    let value = database
        .value(
            "SELECT convert_from(value, 'UTF8') FROM broker_records WHERE topic = 'transactions.v1' LIMIT 1",
        )
        .await;
    let without_transaction = value.replace("\"account_seq\":", "\"account_seq\":9");
    for value in [b"\xff".to_vec(), without_transaction.into_bytes()] {
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
async fn events_in_flight_are_pending_and_a_difference_only_after_a_wait() {
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
async fn a_system_under_load_has_no_differences() {
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
    // The day has facts already, so this run reads only the ranges that the writer and the consumer marked.
    aggregate::run_once(&database.context(), Scope::Touched).await.unwrap();
    let report = verify(&database, None).await;
    assert!(report.is_fine(), "{report:#?}");
    assert_eq!(report.check("facts").unwrap().checked, posted);
    contexts.iter().for_each(|context| context.stop.request());
    relay.await.unwrap().unwrap();
    consumer.await.unwrap().unwrap();
}

/// A violation, the statements that undo it, and the checks that must find it.
struct Violation(&'static str, &'static str, &'static [&'static str]);

const LEDGER_VIOLATIONS: [Violation; 20] = [
    Violation(
        "UPDATE transactions SET created_at = created_at + interval '1 day' WHERE account_id = 'acct-4' AND account_seq = 11",
        "UPDATE transactions SET created_at = created_at - interval '1 day' WHERE account_id = 'acct-4' AND account_seq = 11",
        &["future", "ids", "events", "facts"],
    ),
    Violation(
        // The id lies in another day than the transaction.
        "CREATE TABLE kept AS SELECT id FROM transactions WHERE account_id = 'acct-4' AND account_seq = 11;
         UPDATE transactions SET id = '018df242-2c00-7000-8000-000000000001' WHERE account_id = 'acct-4' AND account_seq = 11",
        "UPDATE transactions SET id = kept.id FROM kept WHERE account_id = 'acct-4' AND account_seq = 11; DROP TABLE kept",
        &["ids", "events", "assessments", "facts"],
    ),
    Violation(
        // acct-4 has the keys 4, 9, 14 …
        "UPDATE transactions SET idempotency_key = 'forged' WHERE account_id = 'acct-4' AND account_seq = 11",
        "UPDATE transactions SET idempotency_key = 'key-54' WHERE account_id = 'acct-4' AND account_seq = 11",
        &["facts"],
    ),
    Violation(
        "ALTER TABLE transactions DROP CONSTRAINT transactions_amount_check;
         ALTER TABLE accounts DROP CONSTRAINT accounts_account_seq_check;
         ALTER TABLE accounts ADD CONSTRAINT accounts_account_seq_check CHECK (account_seq >= -1)",
        "ALTER TABLE transactions ADD CONSTRAINT transactions_amount_check CHECK (amount <> 0);
         ALTER TABLE accounts DROP CONSTRAINT accounts_account_seq_check;
         ALTER TABLE accounts ADD CONSTRAINT accounts_account_seq_check CHECK (account_seq >= 0)",
        &["schema"],
    ),
    Violation(
        "DROP INDEX transactions_reversed_once",
        "CREATE UNIQUE INDEX transactions_reversed_once ON transactions (account_id, reverses) WHERE reverses IS NOT NULL",
        &["schema"],
    ),
    Violation(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'transactions_idempotency'::regclass;
         ALTER TABLE transactions ALTER COLUMN idempotency_key DROP NOT NULL",
        "UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'transactions_idempotency'::regclass;
         ALTER TABLE transactions ALTER COLUMN idempotency_key SET NOT NULL",
        &["schema"],
    ),
    Violation(
        "ALTER TABLE accounts DISABLE TRIGGER ALL",
        "ALTER TABLE accounts ENABLE TRIGGER ALL",
        &["schema"],
    ),
    Violation(
        "UPDATE currencies SET decimals = 3 WHERE code = 'EUR'; DELETE FROM currencies WHERE code = 'JPY'",
        "UPDATE currencies SET decimals = 2 WHERE code = 'EUR'; INSERT INTO currencies VALUES ('JPY', 0)",
        &["currencies"],
    ),
    Violation(
        "ALTER TABLE transactions DISABLE TRIGGER transactions_append_only",
        "ALTER TABLE transactions ENABLE TRIGGER transactions_append_only",
        &["append-only"],
    ),
    Violation(
        "DROP TRIGGER transactions_append_only ON transactions",
        "CREATE TRIGGER transactions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transactions
           FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change()",
        &["append-only"],
    ),
    Violation(
        "ALTER FUNCTION ledger_refuse_change RENAME TO kept;
         CREATE FUNCTION does_nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE OR REPLACE TRIGGER transactions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transactions
           FOR EACH STATEMENT EXECUTE FUNCTION does_nothing()",
        "ALTER FUNCTION kept RENAME TO ledger_refuse_change;
         CREATE OR REPLACE TRIGGER transactions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transactions
           FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
         DROP FUNCTION does_nothing()",
        &["append-only"],
    ),
    Violation(
        "DO $$ BEGIN
           CREATE ROLE other_writer;
           EXECUTE format('ALTER ROLE other_writer IN DATABASE %I SET session_replication_role = replica', current_database());
         END $$",
        "DROP ROLE other_writer",
        &["append-only"],
    ),
    Violation(
        "ALTER TABLE transactions DROP CONSTRAINT transactions_idempotency;
         UPDATE transactions SET idempotency_key = 'key-0' WHERE idempotency_key = 'key-5'",
        "UPDATE transactions SET idempotency_key = 'key-5' WHERE account_id = 'acct-0' AND account_seq = 2;
         ALTER TABLE transactions ADD CONSTRAINT transactions_idempotency UNIQUE (account_id, idempotency_key)",
        &["idempotency keys"],
    ),
    Violation(
        "UPDATE transactions SET account_seq = 99 WHERE account_id = 'acct-1' AND account_seq = 12",
        "UPDATE transactions SET account_seq = 12 WHERE account_id = 'acct-1' AND account_seq = 99",
        &["sequences", "balances", "events", "assessments", "facts", "account days"],
    ),
    Violation(
        "UPDATE transactions SET balance_after = balance_after + 1 WHERE account_id = 'acct-1' AND account_seq = 2",
        "UPDATE transactions SET balance_after = balance_after - 1 WHERE account_id = 'acct-1' AND account_seq = 2",
        &["sequences", "events", "facts"],
    ),
    Violation(
        "UPDATE transactions SET created_at = created_at - interval '1 hour' WHERE account_id = 'acct-2' AND account_seq = 5",
        "UPDATE transactions SET created_at = created_at + interval '1 hour' WHERE account_id = 'acct-2' AND account_seq = 5",
        &["sequences", "ids", "facts"],
    ),
    Violation(
        "UPDATE accounts SET balance = balance + 1 WHERE account_id = 'acct-3'",
        "UPDATE accounts SET balance = balance - 1 WHERE account_id = 'acct-3'",
        &["balances"],
    ),
    Violation(
        "UPDATE accounts SET account_id = 'acct-x' WHERE account_id = 'acct-3'",
        "UPDATE accounts SET account_id = 'acct-3' WHERE account_id = 'acct-x'",
        &["balances", "facts", "account days"],
    ),
    Violation(
        "UPDATE transactions SET reverses = (SELECT id FROM transactions WHERE account_id = 'acct-1' AND account_seq = 1)
           WHERE account_id = 'acct-1' AND account_seq = 2",
        "UPDATE transactions SET reverses = NULL WHERE account_id = 'acct-1'",
        &["reversals", "facts"],
    ),
    Violation(
        "INSERT INTO outbox (lane, topic, key, value, event_id, event_type)
           VALUES (0, 'transactions.v1', 'x', 'x', gen_random_uuid(), 'TransactionCreated.v1')",
        "DELETE FROM outbox",
        &["outbox"],
    ),
];

const TOPIC_VIOLATIONS: [Violation; 7] = [
    Violation(
        "CREATE TABLE gone AS SELECT * FROM broker_records WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 3;
         DELETE FROM broker_records WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 3",
        "INSERT INTO broker_records SELECT * FROM gone; DROP TABLE gone",
        &["published"],
    ),
    Violation(
        // The last records of a partition: no later record leaves a gap.
        "CREATE TABLE gone AS SELECT * FROM broker_records WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset > 5;
         DELETE FROM broker_records WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset > 5",
        "INSERT INTO broker_records SELECT * FROM gone; DROP TABLE gone",
        &["published"],
    ),
    Violation(
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
    Violation(
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"amount\":\"5.00\"', '\"amount\":\"5.01\"'), 'UTF8')
           WHERE topic = 'transactions.v1'",
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"amount\":\"5.01\"', '\"amount\":\"5.00\"'), 'UTF8')
           WHERE topic = 'transactions.v1' AND key = 'acct-0'",
        &["events"],
    ),
    Violation(
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"currency\":\"EUR\"', '\"currency\":\"USD\"'), 'UTF8')
           WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 1",
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"currency\":\"USD\"', '\"currency\":\"EUR\"'), 'UTF8')
           WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 1",
        &["events"],
    ),
    Violation(
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"created_at\"', '\"description\":\"another\",\"created_at\"'), 'UTF8')
           WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 1",
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"description\":\"another\",\"created_at\"', '\"created_at\"'), 'UTF8')
           WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 1",
        &["events"],
    ),
    Violation(
        "UPDATE broker_records SET value = value || '}' WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 0",
        "UPDATE broker_records SET value = substring(value FROM 1 FOR length(value) - 1)
           WHERE topic = 'transactions.v1' AND partition = 0 AND record_offset = 0",
        &["handled", "published"],
    ),
];

const EFFECT_VIOLATIONS: [Violation; 15] = [
    Violation(
        "UPDATE risk_assessments SET risk_score = 50, reasons = '[{\"rule\":\"r\",\"score\":40,\"reason\":\"\"}]'
           WHERE account_id = 'acct-2' AND account_seq = 1",
        "UPDATE risk_assessments SET risk_score = 0, reasons = '[]' WHERE account_id = 'acct-2' AND account_seq = 1",
        &["assessments", "announcements", "facts"],
    ),
    Violation(
        "CREATE TABLE kept AS SELECT * FROM risk_assessments WHERE account_id = 'acct-2' AND account_seq = 1;
         UPDATE risk_assessments SET reasons = '[{\"rule\":\"x\",\"score\":1,\"reason\":\"y\"}]'
           WHERE account_id = 'acct-2' AND account_seq = 1",
        "UPDATE risk_assessments r SET reasons = kept.reasons FROM kept
           WHERE r.transaction_id = kept.transaction_id; DROP TABLE kept",
        &["announcements"],
    ),
    Violation(
        "CREATE TABLE kept AS SELECT * FROM risk_assessments WHERE account_id = 'acct-2' AND account_seq = 1;
         UPDATE risk_assessments SET shadow_reasons = '[{\"rule\":\"x\",\"score\":1,\"reason\":\"y\"}]'
           WHERE account_id = 'acct-2' AND account_seq = 1",
        "UPDATE risk_assessments r SET shadow_reasons = kept.shadow_reasons FROM kept
           WHERE r.transaction_id = kept.transaction_id; DROP TABLE kept",
        &["announcements"],
    ),
    Violation(
        "UPDATE risk_assessments SET rule_errors = '[{\"rule\":\"x\",\"mode\":\"live\",\"error\":\"y\"}]'
           WHERE account_id = 'acct-2' AND account_seq = 1",
        "UPDATE risk_assessments SET rule_errors = NULL WHERE account_id = 'acct-2' AND account_seq = 1",
        &["announcements"],
    ),
    Violation(
        "UPDATE risk_assessments SET assessed_at = assessed_at + interval '1 day' WHERE account_id = 'acct-2' AND account_seq = 1",
        "UPDATE risk_assessments SET assessed_at = assessed_at - interval '1 day' WHERE account_id = 'acct-2' AND account_seq = 1",
        &["future", "announcements", "facts"],
    ),
    Violation(
        "CREATE TABLE gone AS SELECT * FROM risk_assessments WHERE account_id = 'acct-2' AND account_seq = 1;
         DELETE FROM risk_assessments WHERE account_id = 'acct-2' AND account_seq = 1",
        "INSERT INTO risk_assessments SELECT * FROM gone; DROP TABLE gone",
        &["handled", "pending", "announcements", "facts", "account days"],
    ),
    Violation(
        "CREATE TABLE gone AS SELECT * FROM broker_records WHERE topic = 'risk-assessments.v1' AND record_offset = 3;
         DELETE FROM broker_records WHERE topic = 'risk-assessments.v1' AND record_offset = 3",
        "INSERT INTO broker_records SELECT * FROM gone; DROP TABLE gone",
        &["announcements"],
    ),
    Violation(
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"low\"', '\"high\"'), 'UTF8')
           WHERE topic = 'risk-assessments.v1' AND record_offset = 5",
        "UPDATE broker_records SET value = convert_to(replace(convert_from(value, 'UTF8'), '\"high\"', '\"low\"'), 'UTF8')
           WHERE topic = 'risk-assessments.v1' AND record_offset = 5",
        &["announcements"],
    ),
    Violation(
        "INSERT INTO risk_assessments SELECT account_id, 777, gen_random_uuid(), risk_score, risk_level, reasons,
           shadow_reasons, ruleset FROM risk_assessments LIMIT 1",
        "DELETE FROM risk_assessments WHERE account_seq = 777",
        &["assessments"],
    ),
    Violation(
        "ALTER TABLE risk_assessments DROP CONSTRAINT risk_assessments_pkey;
         INSERT INTO risk_assessments SELECT * FROM risk_assessments WHERE account_id = 'acct-2' AND account_seq = 1",
        "DELETE FROM risk_assessments WHERE ctid = (SELECT max(ctid) FROM risk_assessments WHERE account_id = 'acct-2' AND account_seq = 1);
         ALTER TABLE risk_assessments ADD PRIMARY KEY (account_id, account_seq)",
        &["assessments"],
    ),
    Violation(
        "UPDATE consumer_positions SET next_offset = next_offset + 1000 WHERE partition = 1",
        "UPDATE consumer_positions SET next_offset = next_offset - 1000 WHERE partition = 1",
        &["positions"],
    ),
    Violation(
        "INSERT INTO dead_letters VALUES (gen_random_uuid(), 'risk', 'transactions.v1', 0, 2, 'k', 'v', '[]', 'process',
           'process_ended', 'on purpose', 3, NULL)",
        "DELETE FROM dead_letters",
        &["dead letters"],
    ),
    Violation(
        "UPDATE fact_transactions SET signed_amount = signed_amount + 0.0001 WHERE account_id = 'acct-4' AND account_seq = 1",
        "UPDATE fact_transactions SET signed_amount = signed_amount - 0.0001 WHERE account_id = 'acct-4' AND account_seq = 1",
        &["facts"],
    ),
    Violation(
        "UPDATE fact_account_day SET closing_balance = closing_balance + 1 WHERE account_id = 'acct-4'",
        "UPDATE fact_account_day SET closing_balance = closing_balance - 1 WHERE account_id = 'acct-4'",
        &["account days"],
    ),
    Violation(
        "INSERT INTO fact_account_day SELECT '1999-01-01', account_id, currency, 1, 1, 0, 1, 0, 0, 1, 0, NULL, 0
           FROM fact_account_day LIMIT 1",
        "DELETE FROM fact_account_day WHERE business_date = '1999-01-01'",
        &["account days"],
    ),
];

async fn each_violation_is_found(violations: &[Violation]) {
    let database = intact_system().await;
    let client = database.client().await;
    // Switches the append-only trigger off.
    client.batch_execute("SET session_replication_role = replica").await.unwrap();
    for Violation(violate, undo, expected) in violations {
        client.batch_execute(violate).await.expect(violate);
        let report = verify(&database, None).await;
        for check in *expected {
            assert!(report.differing().contains(check), "{check} does not find: {violate}\n{report:#?}");
            assert!(!report.check(check).unwrap().examples.is_empty(), "{check} has no examples");
        }
        for Example { text, .. } in report.checks.iter().flat_map(|check| &check.examples) {
            assert!(!text.ends_with(": "), "no difference is named: {text}");
            for (before, after) in text.split(", ").filter_map(|part| part.split_once(" instead of ")) {
                assert!(!before.ends_with(&format!(" {after}")), "both sides are the same: {text}");
            }
        }
        client.batch_execute(undo).await.expect(undo);
    }
    let report = verify(&database, None).await;
    assert!(report.is_fine(), "a violation was not undone: {report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn violations_in_the_ledger_are_found() {
    each_violation_is_found(&LEDGER_VIOLATIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn violations_in_the_topic_are_found() {
    each_violation_is_found(&TOPIC_VIOLATIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn violations_in_assessments_positions_dead_letters_and_facts_are_found() {
    each_violation_is_found(&EFFECT_VIOLATIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_shows_the_field_with_both_values_and_amounts_as_money() {
    let database = intact_system().await;
    let damage = "SET session_replication_role = replica;
        UPDATE transactions SET amount = amount + 5, description = 'another'
          WHERE account_id = 'acct-1' AND account_seq = 1;
        UPDATE risk_assessments SET risk_score = 77 WHERE account_id = 'acct-2' AND account_seq = 1;
        UPDATE fact_account_day SET credit_sum = credit_sum + 0.0001 WHERE account_id = 'acct-4'";
    database.client().await.batch_execute(damage).await.unwrap();
    let report = verify(&database, None).await;
    for (check, expected) in [
        ("sequences", "does not follow transaction 0: balance 5.01 EUR instead of 5.06 EUR"),
        ("balances", "account acct-1 differs from its transactions: balance "),
        (
            "events",
            "differs from the ledger: amount 5.01 EUR instead of 5.06 EUR, description none instead of \"another\"",
        ),
        ("announcements", "differs from the assessment: score 0 instead of 77"),
        (
            "facts",
            "has a fact that differs: signed amount 5.01 EUR instead of 5.06 EUR, amount 5.01 EUR instead of",
        ),
        ("account days", "has a fact that differs: sum of credits "),
    ] {
        let examples = &report.check(check).unwrap().examples;
        assert!(examples.iter().any(|example| example.text.contains(expected)), "{check}: {examples:#?}");
    }
    let event = &report.check("events").unwrap().examples[0];
    assert_eq!((&event.ids["account_id"], &event.ids["account_seq"]), (&"acct-1".into(), &1.into()));
    let balances = &report.check("balances").unwrap().examples;
    assert!(!balances[0].text.contains("account_seq"), "it does not differ: {balances:#?}");
    let days = &report.check("account days").unwrap().examples;
    assert!(days.iter().any(|example| example.text.contains("01 EUR instead of ")), "{days:#?}");
}

/// Without its row in `accounts`, a transaction has no currency. Seen to fail when the same amount was then shown in two
/// units: `5.01 EUR instead of 501 minor units`.
#[tokio::test(flavor = "multi_thread")]
async fn amounts_that_are_equal_do_not_differ_when_the_account_is_gone() {
    let database = intact_system().await;
    let damage = "UPDATE accounts SET account_id = 'acct-x' WHERE account_id = 'acct-1'";
    database.client().await.batch_execute(damage).await.unwrap();
    let report = verify(&database, None).await;
    for check in ["events", "facts"] {
        let text = &report.check(check).unwrap().examples[0].text;
        assert!(
            text.ends_with(if check == "events" {
                "differs from the ledger: currency EUR instead of none"
            } else {
                "differs: currency EUR instead of none"
            }),
            "{text}"
        );
    }
}

/// Assessment, event and fact agree with each other, so only the rules can tell. Seen to fail without `--rescore`.
#[tokio::test(flavor = "multi_thread")]
async fn a_consistently_forged_assessment_is_found_by_scoring_again() {
    const RULES: &str = "history_rows = 4\n[levels]\nmedium = 40\nhigh = 70\n[features.before]\naggregate = \"count\"\nwindow = \"1d\"\ninclude_event = false\n\
        [[rules]]\nid = \"busy\"\nwhen = \"before >= 2\"\nscore = 50\nreason = \"{before} before\"\n";
    let rules = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(rules.path(), RULES).unwrap();
    let rules = rules.path();
    let database = TestDatabase::new().await;
    post_rows(&database).await;
    let report = settle_with(&database, &[("risk.rules", rules.to_str().unwrap())]).await;
    assert!(report.is_fine(), "{report:#?}");
    aggregate::run_once(&database.context(), Scope::Touched).await.unwrap();
    let rescore = async |rules: Vec<PathBuf>| {
        let args = Args { rescore: true, rules, examples: Some(3), ..Args::default() };
        verify::verify(&database.context_with(&OVERRIDES), &args).await.unwrap()
    };
    let report = rescore(vec![rules.to_owned()]).await;
    assert!(report.is_fine(), "{report:#?}");
    assert_eq!(report.check("rescored").unwrap().checked, ROWS);

    let forge = "CREATE TEMP TABLE forged AS SELECT transaction_id AS id FROM risk_assessments
          WHERE account_id = 'acct-1' AND account_seq > 5;
        UPDATE risk_assessments SET risk_score = 0, risk_level = 'low', reasons = '[]' FROM forged WHERE transaction_id = id;
        UPDATE broker_records SET value = convert_to(regexp_replace(replace(replace(convert_from(value, 'UTF8'),
            '\"risk_score\":50', '\"risk_score\":0'), '\"medium\"', '\"low\"'), '\"reasons\":\\[[^]]*\\]', '\"reasons\":[]'), 'UTF8')
          FROM forged WHERE topic = 'risk-assessments.v1'
            AND (convert_from(value, 'UTF8')::json ->> 'transaction_id')::uuid = id;
        UPDATE fact_transactions SET risk_score = 0, risk_level = 'low', rules = '{}' FROM forged WHERE transaction_id = id;
        UPDATE fact_account_day d SET max_risk_score = (SELECT max(risk_score) FROM fact_transactions f
          WHERE f.business_date = d.business_date AND f.account_id = d.account_id)";
    database.client().await.batch_execute(forge).await.unwrap();
    assert!(verify(&database, None).await.is_fine());
    let report = rescore(vec![rules.to_owned()]).await;
    assert_eq!(report.differing(), ["rescored"]);
    let check = report.check("rescored").unwrap();
    assert_eq!((check.differences, check.examples.len()), (7, 3));
    let expected = "the assessment of transaction 6 of account acct-1 differs from its rule set: score 0 instead of 50, level \
        low instead of medium, reasons [] instead of [{\"rule\":\"busy\"";
    assert!(check.examples[0].text.starts_with(expected), "{check:#?}");
    let report = rescore(Vec::new()).await;
    let note = report.check("rescored").unwrap().note.clone().unwrap();
    assert!(note.contains(&format!("{ROWS} assessments not checked")), "{note}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trimmed_topic_is_reported_and_checked_from_its_first_record() {
    let database = intact_system().await;
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
async fn events_removed_by_retention_are_no_difference_but_later_missing_ones_are() {
    let database = intact_system().await;
    let client = database.client().await;
    // The first five assessments are much older than the others, and retention removed their events.
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
    // Fails if a topic without its start is not checked at all.
    assert_eq!(report.check("announcements").unwrap().differences, 1, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_the_differences_and_exits_with_1() {
    let database = intact_system().await;
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
    assert!(
        text.contains("balances: 1 differ")
            && text.contains("account acct-1 differs from its transactions: balance 0.00 EUR instead of "),
        "{text}"
    );
    let output = binary::run(&["verify", "--output", "json"], &environment);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &json["ok"]), (Some(1), &serde_json::json!(false)));
    let balances =
        json["checks"].as_array().unwrap().iter().find(|check| check["name"] == "balances").unwrap();
    assert_eq!((&balances["status"], &balances["differences"]), (&"differs".into(), &1.into()));
}
