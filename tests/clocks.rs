//! Clocks that are wrong or jump. `LEDGER_CLOCK_OFFSET` sets the clock of one process wrong (`src/runtime/wall_clock.rs`);
//! the database's clock is right.
//!
//! The tests with a wrong clock were seen to fail when the moments came from the clock of the machine, with and without
//! the comparison in the writing statement.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use ledger::{
    domain::{AccountId, Amount, Currency, Direction, IdempotencyKey, Posting},
    posting::{CommitPath, GroupPoster, MemoryLimits, Request},
    repository::ClockReading,
    runtime::DatabaseClock,
};
use serde_json::Value;

use crate::support::{
    api::{client, transaction},
    binary::{self, Binary},
    eventually,
    postgres::TestDatabase,
    system::System,
};

const AHEAD: (&str, &str) = ("LEDGER_CLOCK_OFFSET", "30days");
const BEHIND: (&str, &str) = ("LEDGER_CLOCK_OFFSET", "-2h");
const WARNING: &str = "the clock of this machine is";
const ADMIN: (&str, &str) = ("LEDGER_ADMIN__LISTEN", "127.0.0.1:0");

/// Counts the transactions whose row and event have one moment, which is now by the database's clock.
async fn dated_now(database: &TestDatabase) -> i64 {
    let count = "SELECT count(*) FROM transactions t JOIN outbox o ON o.event_id = t.id
        WHERE t.created_at = o.created_at
          AND t.created_at = (convert_from(o.value, 'UTF8')::json ->> 'created_at')::timestamptz
          AND clock_timestamp() - t.created_at BETWEEN interval '-0.1 s' AND interval '60 s'";
    database.value(count).await.parse().unwrap()
}

async fn post(url: &str, key: &str) -> Value {
    let request = client().post(format!("{url}/transactions")).header("Idempotency-Key", key);
    let answer = request.json(&transaction("a", "credit", "1.00", "EUR")).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{answer:?}");
    answer.json().await.unwrap()
}

fn age(moment: &Value) -> TimeDelta {
    Utc::now() - moment.as_str().unwrap().parse::<DateTime<Utc>>().unwrap()
}

/// Returns the reported offset, in seconds.
fn reported_offset(admin: &str) -> f64 {
    let (_, metrics) = binary::get(admin, "/metrics").unwrap();
    let value = metrics.lines().find_map(|line| line.strip_prefix("ledger_clock_offset_seconds "));
    value.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
}

/// Waits for the warning, and counts how often it was logged.
fn warnings(role: &mut Binary) -> usize {
    role.line_with(WARNING);
    role.stderr().matches(WARNING).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_a_wrong_clock_posts_at_the_time_of_the_database_and_is_not_ready() {
    for (wrong, seconds, text) in [
        (AHEAD, 2_592_000.0, "30days ahead of the clock of the database"),
        (BEHIND, -7_200.0, "2h behind the clock of the database"),
    ] {
        let system = System::on_postgres().await;
        let (mut serve, url) = system.serve(&[ADMIN, wrong]);
        let admin = serve.field("admin");
        for key in ["1", "2", "3"] {
            let posted = post(&url, key).await;
            assert!(age(&posted["created_at"]).abs() < TimeDelta::seconds(60), "{posted}");
        }
        assert_eq!(dated_now(&system.database).await, 3, "{text}");
        let balance: Value =
            client().get(format!("{url}/accounts/a/balance")).send().await.unwrap().json().await.unwrap();
        assert!(age(&balance["as_of"]).abs() < TimeDelta::seconds(60), "{balance}");
        let (status, body) = binary::get(&admin, "/readyz").unwrap();
        assert!(status == 503 && body.contains(text), "{status} {body}");
        let offset = reported_offset(&admin);
        assert!((offset - seconds).abs() < 5.0, "{offset}");
        assert_eq!(warnings(&mut serve), 1, "{}", serve.stderr());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_is_noticed_within_seconds_and_dates_nothing() {
    let system = System::on_postgres().await;
    let (mut serve, url) = system.serve(&[ADMIN, ("LEDGER_CLOCK_OFFSET", "30days@6s")]);
    let admin = serve.field("admin");
    serve.answers(&admin, "/readyz");
    let mut posted = 0;
    while binary::get(&admin, "/readyz").unwrap().0 == 200 {
        posted += 1;
        post(&url, &posted.to_string()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(posted < 1_000, "not noticed");
    }
    post(&url, "last").await;
    assert_eq!(dated_now(&system.database).await, posted + 1);
}

/// Seen to fail without a reading of the clock by writers that have no requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_is_noticed_without_requests() {
    let system = System::on_postgres().await;
    let (mut serve, _url) = system.serve(&[ADMIN, ("LEDGER_CLOCK_OFFSET", "-2h@3s")]);
    let admin = serve.field("admin");
    eventually("not ready", async || binary::get(&admin, "/readyz").unwrap().0 == 503).await;
    assert_eq!(warnings(&mut serve), 1, "{}", serve.stderr());
}

fn request(key: &str) -> Request {
    request_to("a", key)
}

fn request_to(account: &str, key: &str) -> Request {
    let posting = Posting {
        account_id: AccountId::parse(account).unwrap(),
        idempotency_key: IdempotencyKey::parse(key).unwrap(),
        direction: Direction::Credit,
        amount: Amount::from_minor(1).unwrap(),
        currency: Currency::parse("EUR").unwrap(),
        counterparty: None,
        description: None,
        metadata: None,
        reverses: None,
        created_at: None,
    };
    Request { posting: posting.into(), traceparent: None }
}

/// A process may expect a wrong time: after a suspension, or after the database's clock was set. Seen to fail when the
/// writing statement did not compare the moment.
#[tokio::test]
async fn a_group_with_a_wrong_moment_is_refused_by_the_server_and_posted_at_the_right_one() {
    for ahead in [TimeDelta::days(30), TimeDelta::seconds(5), TimeDelta::hours(-1)] {
        let database = TestDatabase::new().await;
        let clock = DatabaseClock::default();
        let limits = MemoryLimits { accounts_max: 10, transactions_max: 10 };
        let settings = &database.config.database;
        let mut poster = GroupPoster::connect(settings, "test", limits, clock.clone()).await.unwrap();
        poster.post(&[request("1")]).await.unwrap();
        let now = Instant::now();
        clock.observe(ClockReading { shown: Utc::now() + ahead, asked: now, answered: now });
        assert_eq!(poster.post(&[request("2")]).await.unwrap().1, CommitPath::Expected);
        clock.observe(ClockReading { shown: Utc::now() + ahead, asked: now, answered: now });
        assert_eq!(poster.post(&[request_to("b", "3")]).await.unwrap().1, CommitPath::Locked);
        assert_eq!(dated_now(&database).await, 3, "{ahead}");
    }
}

fn import(database: &TestDatabase, file: &Path, more: &[&str], wrong: (&str, &str)) -> Value {
    let mut arguments =
        vec!["import", file.to_str().unwrap(), "--output", "json", "--on-error", "skip", "--rejects"];
    let rejects = file.with_extension("rejects");
    arguments.push(rejects.to_str().unwrap());
    arguments.extend(more);
    let output = binary::run(&arguments, &[("LEDGER_DATABASE__URL", &database.url), wrong]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rejected = std::fs::read_to_string(rejects).unwrap();
    assert!(rejected.contains("created_at is in the future: the database's clock shows 2"), "{rejected}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_rows_of_the_future_are_refused_by_the_clock_of_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rows.csv");
    let at = |offset: TimeDelta| (Utc::now() + offset).to_rfc3339();
    let (past, future) = (at(TimeDelta::hours(-1)), at(TimeDelta::hours(1)));
    let rows = format!(
        "account_id,idempotency_key,direction,amount,currency,created_at\n\
         a,1,credit,1.00,EUR,{past}\na,2,credit,1.00,EUR,{future}\na,3,credit,1.00,EUR,\n"
    );
    std::fs::write(&file, rows).unwrap();
    for wrong in [AHEAD, BEHIND] {
        let database = TestDatabase::new().await;
        for flags in [&["--dry-run"][..], &[]] {
            let report = import(&database, &file, flags, wrong);
            assert_eq!((&report["created"], &report["rejected"]), (&2.into(), &1.into()), "{report}");
        }
        assert_eq!(database.value("SELECT count(*) FROM transactions").await, "2");
        assert_eq!(dated_now(&database).await, 1, "the row without a time");
    }
}

/// Brokers delete records by the age of their timestamps, and refuse timestamps of the future.
#[tokio::test(flavor = "multi_thread")]
async fn relay_and_consumer_with_wrong_clocks_use_the_time_of_the_database_and_are_not_ready() {
    let system = System::on_postgres().await;
    system.post(0, 20, 3, |_| None).await;
    for (mut role, text) in [
        (system.relay(&[AHEAD]), "30days ahead of the clock of the database"),
        (system.consumer(&[BEHIND]), "2h behind the clock of the database"),
    ] {
        let admin = role.field("admin");
        let (status, body) = binary::get(&admin, "/readyz").unwrap();
        assert!(status == 503 && body.contains(text), "{status} {body}");
        let table = if text.contains("ahead") { "broker_records" } else { "risk_assessments" };
        eventually(table, async || system.count(table).await == 20).await;
        assert_eq!(warnings(&mut role), 1, "{}", role.stderr());
    }
    let wrong =
        "(SELECT created_at AS at FROM broker_records UNION ALL SELECT assessed_at FROM risk_assessments) m
                 WHERE at NOT BETWEEN clock_timestamp() - interval '60 s' AND clock_timestamp()";
    assert_eq!(system.count(wrong).await, 0);
}
