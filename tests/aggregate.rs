//! `ledger aggregate`: facts equal the ledger, a mark without ids rebuilds only its day, a second run
//! changes nothing, and a kill loses nothing.
//!
//! Planted bugs that made these tests fail:
//! - deleting marks that the snapshot of the day did not see, which loses a transaction that commits during the rebuild;
//! - a rebuild without `leases::hold`, which lets a zombie write.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use ledger::{
    aggregate::{self, EXIT_BUSY, Outcome, Scope},
    domain::{AccountId, Amount, Currency, Direction, IdempotencyKey, Posting},
    posting::{Request, post_locked},
    repository::{
        RepositoryError, facts,
        facts::runs::AggregateRun,
        leases::{self, Lease},
        verification::{self, DayFacts},
    },
};

use crate::support::{DEADLINE, binary, binary::Binary, eventually, postgres::TestDatabase};

pub(crate) const DAYS: [&str; 3] = ["2024-02-28", "2024-02-29", "2024-03-01"];

pub(crate) fn request(account: &str, code: &str, minor: i64, at: &str, key: usize) -> Request {
    let posting = Posting {
        account_id: AccountId::parse(account).unwrap(),
        idempotency_key: IdempotencyKey::parse(&format!("key-{key}")).unwrap(),
        direction: if minor < 0 { Direction::Debit } else { Direction::Credit },
        amount: Amount::from_minor(minor.abs()).unwrap(),
        currency: Currency::parse(code).unwrap(),
        counterparty: Some("shop".into()),
        description: None,
        metadata: None,
        reverses: None,
        created_at: Some(at.parse::<DateTime<Utc>>().unwrap()),
    };
    Request { posting: posting.into(), traceparent: None }
}

/// Posts on three days, in currencies with 0 to 4 decimals, in the first and the last microsecond of a day, and the
/// largest amount.
pub(crate) async fn fill(database: &TestDatabase) {
    let currencies = [("a", "EUR"), ("b", "JPY"), ("c", "BHD"), ("d", "CLF")];
    let mut requests = Vec::new();
    for (key, day) in DAYS.iter().enumerate() {
        for (account, code) in currencies {
            requests.push(request(account, code, 12_345, &format!("{day}T00:00:00Z"), key * 10));
            requests.push(request(account, code, -345, &format!("{day}T23:59:59.999999Z"), key * 10 + 1));
        }
    }
    requests.push(request("large", "EUR", 999_999_999_999_999_999, "2024-02-28T12:00:00Z", 0));
    let mut connection = database.connection().await;
    let posted = post_locked(&mut connection, &requests).await.unwrap();
    assert_eq!(posted.decisions.len(), 25);
}

pub(crate) async fn run(database: &TestDatabase, scope: Scope) -> AggregateRun {
    match aggregate::run_once(&database.context(), scope).await.unwrap() {
        Outcome::Ran(run) => run,
        busy @ Outcome::Busy { .. } => panic!("{busy:?}"),
    }
}

pub(crate) async fn fingerprint(database: &TestDatabase) -> String {
    let of = |table: &str| format!("(SELECT string_agg(t::text, '|' ORDER BY t::text) FROM {table} t)");
    database.value(&format!("SELECT md5({} || {})", of("fact_transactions"), of("fact_account_day"))).await
}

/// Compares all facts field by field, with the statements of `verify`, and returns their number.
pub(crate) async fn facts_equal_the_ledger(database: &TestDatabase) -> i64 {
    let mut connection = database.connection().await;
    verification::create_functions(&mut connection, 10).await.unwrap();
    let mut compared = 0;
    for day in facts::days_between(&mut connection, None, None).await.unwrap() {
        match verification::compare_day(&mut connection, day).await.unwrap() {
            DayFacts::Marked => panic!("{day} is still marked"),
            DayFacts::Compared { transactions, transactions_differ, account_days_differ, .. } => {
                assert_eq!(transactions_differ.examples, [], "{day}");
                assert_eq!(account_days_differ.examples, [], "{day}");
                compared += transactions;
            }
        }
    }
    compared
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_equal_the_ledger_and_a_second_run_changes_nothing() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    let first = run(&database, Scope::Touched).await;
    assert_eq!((first.status.as_str(), first.days_rebuilt, first.transactions), ("succeeded", 3, 25));
    assert_eq!(rows_written(&first), (25, 0, 0));
    assert_eq!(facts_equal_the_ledger(&database).await, 25);
    let largest = "SELECT amount FROM fact_transactions WHERE account_id = 'large'";
    assert_eq!(database.value(largest).await, "9999999999999999.9900");
    let day =
        "SELECT concat_ws(' ', transaction_count, credit_sum, debit_sum, opening_balance, closing_balance)
               FROM fact_account_day WHERE account_id = 'c' AND business_date = '2024-02-29'";
    assert_eq!(database.value(day).await, "2 12.3450 0.3450 12.0000 24.0000");

    let before = fingerprint(&database).await;
    assert_eq!(run(&database, Scope::Touched).await.days_rebuilt, 0);
    let full = run(&database, Scope::Full).await;
    assert_eq!((full.days_rebuilt, full.transactions, rows_written(&full)), (3, 25, (0, 0, 0)));
    assert_eq!(fingerprint(&database).await, before);
}

/// Seen to fail when a rebuild deleted the facts of the day and inserted them again.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_writes_only_the_rows_that_are_missing_differ_or_have_no_transaction() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    run(&database, Scope::Touched).await;
    let before = fingerprint(&database).await;
    let damage = "DELETE FROM fact_transactions WHERE account_id = 'a' AND account_seq = 3;
        UPDATE fact_transactions SET rules = '{forged}' WHERE account_id = 'b' AND account_seq = 4;
        UPDATE fact_transactions SET idempotency_key = 'forged' WHERE account_id = 'c' AND account_seq = 4;
        INSERT INTO fact_transactions SELECT '2024-02-29', gen_random_uuid(), account_id, 77, created_at, hour, currency,
          direction, amount, signed_amount, balance_after FROM fact_transactions WHERE account_id = 'large';
        UPDATE fact_account_day SET closing_balance = 0 WHERE account_id = 'd' AND business_date = '2024-02-29';
        INSERT INTO fact_account_day SELECT '2024-02-29', account_id, currency, transaction_count, credit_count,
          debit_count, credit_sum, debit_sum, opening_balance, closing_balance, assessed_count, max_risk_score,
          high_risk_count FROM fact_account_day WHERE account_id = 'large'";
    database.client().await.batch_execute(damage).await.unwrap();
    let untouched = "SELECT string_agg(ctid::text || xmin::text, ' ' ORDER BY account_id, account_seq)
        FROM fact_transactions WHERE account_id IN ('a', 'd') AND account_seq <> 3";
    let rows = database.value(untouched).await;
    let repaired = run(&database, Scope::Full).await;
    assert_eq!((repaired.days_rebuilt, rows_written(&repaired)), (3, (1, 2, 1)));
    assert_eq!(fingerprint(&database).await, before);
    assert_eq!(database.value(untouched).await, rows, "rows that were right were written again");
}

/// Returns how many rows a run added, changed and removed.
pub(crate) fn rows_written(run: &AggregateRun) -> (i64, i64, i64) {
    (run.rows_added, run.rows_changed, run.rows_removed)
}

/// Tools for change data capture create such a publication by default. Seen to fail when `fact_marks` had no primary key:
/// PostgreSQL then refuses to delete marks.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_of_all_tables_stops_no_rebuild() {
    let database = TestDatabase::new().await;
    database.client().await.batch_execute("CREATE PUBLICATION everything FOR ALL TABLES").await.unwrap();
    fill(&database).await;
    let first = run(&database, Scope::Touched).await;
    assert_eq!((first.status.as_str(), first.days_rebuilt, first.transactions), ("succeeded", 3, 25));
    assert_eq!(run(&database, Scope::Full).await.status, "succeeded");
    assert_eq!(database.value("SELECT count(*) FROM fact_marks").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_rebuilds_its_days_and_removes_facts_without_transactions() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    run(&database, Scope::Touched).await;
    let before = fingerprint(&database).await;
    let client = database.client().await;
    client
        .batch_execute(
            "UPDATE fact_transactions SET amount = amount + 1;
             INSERT INTO fact_account_day SELECT '2024-02-27', account_id, currency, transaction_count, credit_count,
               debit_count, credit_sum, debit_sum, opening_balance, closing_balance, assessed_count, max_risk_score,
               high_risk_count FROM fact_account_day WHERE business_date = '2024-02-28'",
        )
        .await
        .unwrap();
    let day = |text: &str| Some(text.parse::<NaiveDate>().unwrap());
    let middle = run(&database, Scope::Range { from: day(DAYS[1]), to: day(DAYS[1]) }).await;
    assert_eq!((middle.days_rebuilt, middle.first_day, middle.last_day), (1, day(DAYS[1]), day(DAYS[1])));
    let rest = run(&database, Scope::Range { from: None, to: day(DAYS[0]) }).await;
    assert_eq!((rest.days_rebuilt, rest.first_day), (2, day("2024-02-27")));
    run(&database, Scope::Range { from: day(DAYS[2]), to: None }).await;
    assert_eq!(fingerprint(&database).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_transaction_makes_the_next_run_rebuild_only_its_day() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    let late = database.client().await;
    let insert = "BEGIN;
        INSERT INTO accounts (account_id, currency, balance, account_seq) VALUES ('late', 'EUR', 7, 1);
        INSERT INTO transactions (account_id, account_seq, id, amount, balance_after, created_at, idempotency_key)
          VALUES ('late', 1, '018df242-2c00-7000-8000-000000000001', 7, 7, '2024-02-29T00:00:00Z', 'k');
        INSERT INTO fact_marks (day) VALUES ('2024-02-29');";
    late.batch_execute(insert).await.unwrap();
    assert_eq!(run(&database, Scope::Touched).await.days_rebuilt, 3);
    late.batch_execute("COMMIT").await.unwrap();
    let second = run(&database, Scope::Touched).await;
    assert_eq!((second.days_rebuilt, second.first_day), (1, Some(DAYS[1].parse().unwrap())));
    assert_eq!(facts_equal_the_ledger(&database).await, 26);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_commits_during_the_rebuild_keeps_its_mark() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    let blocker = database.client().await;
    blocker.batch_execute(&block(DAYS[0])).await.unwrap();
    let context = database.context();
    let running = tokio::spawn(async move { aggregate::run_once(&context, Scope::Touched).await });
    wait_until_it_waits_for_a_lock(&database).await;
    // The snapshot of the first day exists; this transaction is not in it.
    let mut connection = database.connection().await;
    let more = [request("e", "EUR", 100, "2024-02-28T08:00:00Z", 99)];
    post_locked(&mut connection, &more).await.unwrap();
    blocker.batch_execute("ROLLBACK").await.unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(database.value("SELECT string_agg(day::text, ' ') FROM fact_marks").await, DAYS[0]);
    assert_eq!(run(&database, Scope::Touched).await.days_rebuilt, 1);
    assert_eq!(facts_equal_the_ledger(&database).await, 26);
}

/// Fails if a run waits until marks are older than every open database transaction of the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_transaction_in_another_database_delays_no_day() {
    let database = TestDatabase::new().await;
    let elsewhere = TestDatabase::new().await.client().await;
    elsewhere.batch_execute("BEGIN; INSERT INTO accounts VALUES ('a', 'EUR')").await.unwrap();
    fill(&database).await;
    assert_eq!(run(&database, Scope::Touched).await.days_rebuilt, 3);
    assert_eq!(facts_equal_the_ledger(&database).await, 25);
    elsewhere.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_assessment_rebuilds_only_its_day() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    run(&database, Scope::Touched).await;
    let assess = "INSERT INTO risk_assessments
            (account_id, account_seq, transaction_id, risk_score, risk_level, reasons, shadow_reasons, ruleset)
          SELECT account_id, account_seq, id, 77, 'high',
            '[{\"rule\":\"large\",\"score\":40,\"reason\":\"x\"},{\"rule\":\"new\",\"score\":37,\"reason\":\"y\"}]', '[]', 'rules'
          FROM transactions WHERE account_id = 'a' AND account_seq = 3;
        INSERT INTO fact_marks (day) VALUES ('2024-02-29');";
    database.client().await.batch_execute(assess).await.unwrap();
    let second = run(&database, Scope::Touched).await;
    assert_eq!((second.days_rebuilt, second.high_risk, rows_written(&second)), (1, 1, (0, 1, 0)));
    assert_eq!(facts_equal_the_ledger(&database).await, 25);
    let day = "SELECT concat_ws(' ', assessed_count, max_risk_score, high_risk_count) FROM fact_account_day
               WHERE account_id = 'a' AND business_date = '2024-02-29'";
    assert_eq!(database.value(day).await, "1 77 1");
    let fact = "SELECT idempotency_key || rules::text FROM fact_transactions WHERE account_id = 'a' AND account_seq = 3";
    assert_eq!(database.value(fact).await, "key-10{large,new}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_views_give_totals_rules_and_balances() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    let assess = "INSERT INTO risk_assessments
            (account_id, account_seq, transaction_id, risk_score, risk_level, reasons, shadow_reasons, ruleset)
          SELECT account_id, account_seq, id, 30, 'medium', '[{\"rule\":\"new\",\"score\":30,\"reason\":\"y\"}]', '[]', 'rules'
          FROM transactions WHERE account_id IN ('a', 'large')";
    database.client().await.batch_execute(assess).await.unwrap();
    run(&database, Scope::Touched).await;
    let totals = "SELECT concat_ws(' ', account_count, transaction_count, credit_sum, debit_sum, net_change, assessed_count)
        FROM daily_totals WHERE business_date = '2024-02-29' AND currency = 'EUR'";
    assert_eq!(database.value(totals).await, "1 2 123.4500 3.4500 120.0000 2");
    let rules =
        "SELECT concat_ws(' ', rule, transaction_count, account_count, amount_sum, average_risk_score)
        FROM risk_by_rule WHERE business_date = '2024-02-28'";
    assert_eq!(database.value(rules).await, "new 3 2 10000000000000126.8900 30.0");
    let balances = "SELECT string_agg(account_id || balance, ' ' ORDER BY account_id) FROM account_balances
        WHERE account_id <> 'large'";
    assert_eq!(database.value(balances).await, "a360.0000 b36000.0000 c36.0000 d3.6000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_lists_the_days_and_writes_nothing() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    let environment = [("LEDGER_DATABASE__URL", database.url.as_str())];
    let output = binary::run(&["aggregate", "--dry-run", "--output", "json"], &environment);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success());
    assert_eq!((&json["outcome"], &json["mode"]), (&"dry_run".into(), &"touched".into()));
    let first = serde_json::json!({ "day": DAYS[0], "marks": 3, "transactions": 9, "facts": 0 });
    assert_eq!((json["days"].as_array().unwrap().len(), &json["days"][0]), (3, &first));
    let written = "SELECT (SELECT count(*) FROM fact_transactions) + (SELECT count(*) FROM aggregate_runs)";
    assert_eq!(database.value(written).await, "0");
}

/// Returns statements that block the rebuild of the day: it waits for this transaction, which has inserted the same
/// key.
fn block(day: &str) -> String {
    format!(
        "BEGIN; INSERT INTO fact_account_day VALUES ('{day}', 'a', 'EUR', 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0);"
    )
}

async fn wait_until_it_waits_for_a_lock(database: &TestDatabase) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ledger aggregate'
                   AND datname = current_database() AND wait_event_type = 'Lock'";
    eventually("aggregate waits for the lock", async || database.value(waiting).await == "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_during_a_run_loses_nothing() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    let blocker = database.client().await;
    blocker.batch_execute(&block(DAYS[1])).await.unwrap();
    let environment =
        [("LEDGER_DATABASE__URL", database.url.as_str()), ("LEDGER_AGGREGATE__LEASE_TTL", "1s")];
    let killed = Binary::start(&["aggregate"], &environment);
    wait_until_it_waits_for_a_lock(&database).await;
    assert_eq!(database.value("SELECT days_rebuilt FROM aggregate_runs").await, "1");
    killed.kill();
    blocker.batch_execute("ROLLBACK").await.unwrap();

    eventually("the lease of the killed process expires and a run succeeds", async || {
        let output = binary::run(&["aggregate", "--output", "json"], &environment);
        assert!(output.status.success() || output.status.code() == Some(EXIT_BUSY.into()), "{output:?}");
        output.status.success()
    })
    .await;
    assert_eq!(facts_equal_the_ledger(&database).await, 25);
    let runs =
        "SELECT string_agg(status || ' ' || days_rebuilt || coalesce(' ' || error, ''), ', ' ORDER BY id)
                FROM aggregate_runs";
    assert_eq!(database.value(runs).await, "failed 1 the process ended before the run did, succeeded 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_a_long_rebuild_at_once_and_is_recorded() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    let blocker = database.client().await;
    blocker.batch_execute(&block(DAYS[1])).await.unwrap();
    let environment = [("LEDGER_DATABASE__URL", database.url.as_str())];
    let stopped = Binary::start(&["aggregate"], &environment);
    wait_until_it_waits_for_a_lock(&database).await;
    stopped.terminate();
    let (status, stderr) = stopped.ended_within(DEADLINE);
    assert_eq!(status.code(), Some(143), "{stderr}");
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(database.value("SELECT status FROM aggregate_runs").await, "failed");
    assert_eq!(database.value("SELECT count(*) FROM leases WHERE owner IS NOT NULL").await, "0");
    run(&database, Scope::Touched).await;
    assert_eq!(facts_equal_the_ledger(&database).await, 25);
}

pub(crate) async fn lease_of(database: &TestDatabase, owner: &str) -> Lease {
    let mut connection = database.connection().await;
    let (names, ttl) = ([aggregate::LEASE.to_owned()], Duration::from_secs(30));
    leases::create(&mut connection, &names).await.unwrap();
    let taken = leases::take(&mut connection, owner, &names, 1, ttl).await.unwrap().pop().unwrap();
    Lease::new(taken.name, owner.to_owned(), taken.epoch, ttl)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_names_the_owner_and_exits_with_a_code_of_its_own_or_waits() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    lease_of(&database, "the-other-host").await;
    let environment = [("LEDGER_DATABASE__URL", database.url.as_str())];
    let output = binary::run(&["aggregate"], &environment);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("the-other-host is aggregating"), "{stderr}");
    assert_eq!(output.status.code(), Some(EXIT_BUSY.into()));
    let output = binary::run(&["aggregate", "--output", "json"], &environment);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json, serde_json::json!({ "outcome": "busy", "owner": "the-other-host" }));
    assert_eq!(output.status.code(), Some(EXIT_BUSY.into()));
    assert_eq!(database.value("SELECT count(*) FROM fact_transactions").await, "0");

    let waiting = Binary::start(&["aggregate", "--wait", "60s", "--output", "json"], &environment);
    let is_connected = "SELECT count(*) > 0 FROM pg_stat_activity
        WHERE application_name = 'ledger aggregate' AND datname = current_database()";
    eventually("the instance tries", async || database.value(is_connected).await == "t").await;
    database.client().await.batch_execute("UPDATE leases SET expires_at = '-infinity'").await.unwrap();
    let (status, stderr) = waiting.ended_within(DEADLINE);
    assert!(status.success(), "{stderr}");
    assert_eq!(facts_equal_the_ledger(&database).await, 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_lost_the_lease_writes_nothing() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    let lost = lease_of(&database, "frozen").await;
    database
        .client()
        .await
        .batch_execute("UPDATE leases SET owner = 'rival', epoch = epoch + 1")
        .await
        .unwrap();
    let mut connection = database.connection().await;
    let rebuilt = facts::rebuild_day(&mut connection, &lost, 1, DAYS[0].parse().unwrap()).await;
    assert!(matches!(rebuilt, Err(RepositoryError::LeaseLost(_))), "{rebuilt:?}");
    assert_eq!(database.value("SELECT count(*) FROM fact_transactions").await, "0");
    assert_eq!(database.value("SELECT count(*) FROM fact_marks WHERE day = '2024-02-28'").await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_it_keeps_running_and_serves_its_admin_listener() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    let environment =
        [("LEDGER_DATABASE__URL", database.url.as_str()), ("LEDGER_ADMIN__LISTEN", "127.0.0.1:0")];
    let mut running = Binary::start(&["aggregate", "--every", "100ms"], &environment);
    let admin = running.field("admin");
    running.answers(&admin, "/readyz");
    eventually("three runs", async || {
        database.value("SELECT count(*) >= 3 FROM aggregate_runs WHERE status = 'succeeded'").await == "t"
    })
    .await;
    let (_, metrics) = binary::get(&admin, "/metrics").unwrap();
    assert!(metrics.contains("ledger_aggregate_rebuilds_total 3"), "{metrics}");
    assert!(metrics.contains("ledger_aggregate_last_success_timestamp_seconds 1"), "{metrics}");
    running.stop();
    assert_eq!(facts_equal_the_ledger(&database).await, 25);
}
