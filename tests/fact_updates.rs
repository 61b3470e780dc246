//! `ledger aggregate` updates the facts that marks name, and no others. The result equals a rebuild of everything, however
//! the marks are divided among database transactions, and wherever a run is interrupted.

use std::time::Duration;

use ledger::{
    aggregate::Scope,
    domain::{fact_marks, transaction_id},
    posting::post_locked,
    repository::{Connection, RepositoryError, facts, facts::runs, leases::Lease},
};
use tokio::time::sleep;

use crate::{
    aggregate::{DAYS, facts_equal_the_ledger, fill, fingerprint, lease_of, request, rows_written, run},
    support::{DEADLINE, binary, binary::Binary, postgres::TestDatabase},
};

/// Returns statements that assess a transaction and mark its id, as the consumer does.
fn assess(account: &str, account_seq: i64, score: i16, level: &str) -> String {
    format!(
        "INSERT INTO risk_assessments
           (account_id, account_seq, transaction_id, risk_score, risk_level, reasons, shadow_reasons, ruleset)
         SELECT account_id, account_seq, id, {score}, '{level}', '[]', '[]', 'rules' FROM transactions
         WHERE account_id = '{account}' AND account_seq = {account_seq};
         INSERT INTO fact_marks (day, begin_id, end_id)
         SELECT (created_at AT TIME ZONE 'UTC')::date, id, (left(id::text, 24) || 'ffffffffffff')::uuid FROM transactions
         WHERE account_id = '{account}' AND account_seq = {account_seq};"
    )
}

/// A run that compares the whole day also changes the forged facts.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_row_reads_and_writes_only_what_its_mark_names() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    run(&database, Scope::Touched).await;
    let client = database.client().await;
    let forge =
        "UPDATE fact_transactions SET description = 'forged' WHERE created_at < '2024-03-01T12:00:00Z'";
    client.batch_execute(forge).await.unwrap();
    let late = [request("a", "EUR", 100, "2024-03-01T23:59:59.999999Z", 99)];
    post_locked(&mut database.connection().await, &late).await.unwrap();
    client.batch_execute(&assess("b", 6, 80, "high")).await.unwrap();

    let second = run(&database, Scope::Touched).await;
    assert_eq!((second.days_rebuilt, rows_written(&second)), (1, (1, 1, 0)));
    assert_eq!((second.transactions, second.high_risk), (2, 1));
    let forged = "SELECT count(*) FROM fact_transactions WHERE description = 'forged'";
    assert_eq!(database.value(forged).await, "21");
    let day = "SELECT concat_ws(' ', transaction_count, credit_sum, opening_balance, closing_balance, first_account_seq,
                 last_account_seq) FROM fact_account_day WHERE account_id = 'a' AND business_date = '2024-03-01'";
    assert_eq!(database.value(day).await, "3 124.4500 240.0000 361.0000 5 7");

    let full = run(&database, Scope::Full).await;
    assert_eq!(rows_written(&full), (0, 21, 0));
    assert_eq!(facts_equal_the_ledger(&database).await, 26);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assessment_that_differs_from_the_fact_makes_the_run_rebuild_the_day() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    let client = database.client().await;
    client.batch_execute(&assess("a", 3, 80, "high")).await.unwrap();
    run(&database, Scope::Touched).await;
    let other = "UPDATE risk_assessments SET risk_score = 20, risk_level = 'low';
        INSERT INTO fact_marks (day, begin_id, end_id)
        SELECT '2024-02-29', id, (left(id::text, 24) || 'ffffffffffff')::uuid FROM transactions
        WHERE account_id = 'a' AND account_seq = 3";
    client.batch_execute(other).await.unwrap();
    let second = run(&database, Scope::Touched).await;
    assert_eq!((second.transactions, rows_written(&second)), (8, (0, 1, 0)));
    assert_eq!(facts_equal_the_ledger(&database).await, 25);
}

/// One round of changes: transactions of several accounts on each day, and assessments of some earlier ones.
async fn change(database: &TestDatabase, connection: &mut Connection, round: usize) {
    for (number, day) in DAYS.iter().enumerate() {
        let key = 1_000 + round * 10 + number;
        let minor = if round.is_multiple_of(3) { -1 } else { 5 };
        let at = format!("{day}T12:{:02}:00Z", round % 60);
        let (x, y) = (format!("x-{number}"), format!("y-{number}"));
        let group = [request(&x, "EUR", minor, &at, key), request(&y, "JPY", 7, &at, key)];
        post_locked(connection, &group).await.unwrap();
    }
    let scores = "WITH pending AS (
          SELECT account_id, account_seq, id, created_at FROM transactions t
          WHERE NOT EXISTS (SELECT FROM risk_assessments r WHERE r.transaction_id = t.id)
          ORDER BY md5(id::text) LIMIT 3),
        assessed AS (
          INSERT INTO risk_assessments
            (account_id, account_seq, transaction_id, risk_score, risk_level, reasons, shadow_reasons, ruleset)
          SELECT account_id, account_seq, id, account_seq % 100, CASE account_seq % 2 WHEN 0 THEN 'high' ELSE 'low' END,
            '[]', '[]', 'rules' FROM pending)
        INSERT INTO fact_marks (day, begin_id, end_id)
        SELECT (created_at AT TIME ZONE 'UTC')::date, id, (left(id::text, 24) || 'ffffffffffff')::uuid FROM pending";
    database.client().await.batch_execute(scores).await.unwrap();
}

/// Updates the facts of all marked days, two marks at a time.
async fn update(connection: &mut Connection, lease: &Lease) -> Result<(), RepositoryError> {
    let run_id = runs::start(connection, lease, "touched").await?;
    for day in facts::marked_days(connection).await? {
        let mut after = None;
        loop {
            after = facts::update_day(connection, lease, run_id, day, after, 2).await?.next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// Seen to fail without the comparison of the numbers with the count: the closing balance stayed that of the earlier row.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_day_that_an_older_binary_wrote_is_rebuilt() {
    let database = TestDatabase::new().await;
    let mut writer = database.connection().await;
    for (round, older) in
        ["first_account_seq = NULL, last_account_seq = NULL", "last_account_seq = 1"].iter().enumerate()
    {
        change(&database, &mut writer, 3 * round).await;
        change(&database, &mut writer, 3 * round + 1).await;
        run(&database, Scope::Touched).await;
        let set = format!("UPDATE fact_account_day SET {older}");
        database.client().await.batch_execute(&set).await.unwrap();
        change(&database, &mut writer, 3 * round + 2).await;
        run(&database, Scope::Touched).await;
        facts_equal_the_ledger(&database).await;
    }
}

async fn a_full_rebuild_changes_nothing(database: &TestDatabase) {
    assert_eq!(database.value("SELECT count(*) FROM fact_marks").await, "0");
    facts_equal_the_ledger(database).await;
    let before = fingerprint(database).await;
    let full = run(database, Scope::Full).await;
    assert_eq!(rows_written(&full), (0, 0, 0));
    assert_eq!(fingerprint(database).await, before);
}

/// Aborts a run fifty times, at another moment each time. Transactions and assessments commit between the runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_interrupted_anywhere_loses_nothing() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    run(&database, Scope::Touched).await;
    let lease = lease_of(&database, "interrupted").await;
    let mut writer = database.connection().await;
    for round in 0..50 {
        change(&database, &mut writer, round).await;
        let mut connection = database.connection().await;
        let lease = lease.clone();
        let running = tokio::spawn(async move { update(&mut connection, &lease).await });
        sleep(Duration::from_millis(u64::try_from(round).unwrap() * 2)).await;
        // The connection is dropped wherever the run is; its database transaction ends there.
        running.abort();
        let _ = running.await;
    }
    let mut connection = database.connection().await;
    update(&mut connection, &lease).await.unwrap();
    let release = "UPDATE leases SET owner = NULL, expires_at = '-infinity'; UPDATE aggregate_runs SET status = 'failed'";
    database.client().await.batch_execute(release).await.unwrap();
    a_full_rebuild_changes_nothing(&database).await;
}

/// Kills the process after the first and after a later database transaction that it committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_two_days_loses_nothing() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    run(&database, Scope::Touched).await;
    let mut writer = database.connection().await;
    for (round, point) in
        ["aggregate/updated", "aggregate/updated@2", "aggregate/updated@3"].iter().enumerate()
    {
        change(&database, &mut writer, round).await;
        let environment = [
            ("LEDGER_DATABASE__URL", database.url.as_str()),
            ("LEDGER_AGGREGATE__LEASE_TTL", "1s"),
            ("LEDGER_FAIL_POINT", point),
        ];
        let killed = Binary::start(&["aggregate", "--wait", "60s"], &environment);
        let (status, stderr) = killed.ended_within(DEADLINE * 4);
        assert!(!status.success() && status.code().is_none(), "{status}: {stderr}");
    }
    let environment = [("LEDGER_DATABASE__URL", database.url.as_str())];
    let output = binary::run(&["aggregate", "--wait", "60s"], &environment);
    assert!(output.status.success(), "{output:?}");
    a_full_rebuild_changes_nothing(&database).await;
}

/// A database transaction that is open across runs has ids inside of ranges that the runs read.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_open_across_runs_is_added_when_it_commits() {
    let database = TestDatabase::new().await;
    fill(&database).await;
    run(&database, Scope::Touched).await;
    let at = "2024-02-29T12:00:00.5Z".parse().unwrap();
    let id = transaction_id(at, 1, 0);
    let mark = fact_marks([(at.date_naive(), id)])[0];
    let late = database.client().await;
    let insert = format!(
        "BEGIN;
         INSERT INTO accounts (account_id, currency, balance, account_seq) VALUES ('late', 'EUR', 7, 1);
         INSERT INTO transactions (account_id, account_seq, id, amount, balance_after, created_at, idempotency_key)
           VALUES ('late', 1, '{id}', 7, 7, '{at}', 'k');
         INSERT INTO fact_marks (day, begin_id, end_id) VALUES ('{}', '{}', '{}')",
        mark.day, mark.ids.begin, mark.ids.end
    );
    late.batch_execute(&insert).await.unwrap();
    let mut writer = database.connection().await;
    for round in 0..3 {
        let around = [
            request("e", "EUR", 100, "2024-02-29T12:00:00Z", round),
            request("f", "EUR", 100, "2024-02-29T12:00:01Z", round),
        ];
        post_locked(&mut writer, &around).await.unwrap();
        let updated = run(&database, Scope::Touched).await;
        assert_eq!((updated.days_rebuilt, rows_written(&updated)), (1, (2, 0, 0)));
    }
    late.batch_execute("COMMIT").await.unwrap();
    let last = run(&database, Scope::Touched).await;
    assert_eq!((last.transactions, rows_written(&last)), (1, (1, 0, 0)));
    a_full_rebuild_changes_nothing(&database).await;
}
