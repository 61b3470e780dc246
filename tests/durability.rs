//! Every acknowledged transaction is in the ledger, once, whatever happens to the process or to its connections.
//!
//! Seen to fail when requests were answered before the commit (`kill -9` lost acknowledged transactions), when a lost
//! connection was answered 500, and when queued requests were dropped at SIGTERM.

use std::{collections::HashSet, sync::atomic::Ordering, time::Duration};

use crate::support::{
    DEADLINE,
    api::{Api, transaction},
    binary::Binary,
    load::{CLIENTS, load, nothing_is_lost_or_doubled},
    postgres::TestDatabase,
};

fn start(database: &TestDatabase, more: &[(&str, &str)]) -> (Binary, String) {
    let environment = [
        ("LEDGER_DATABASE__URL", database.url.as_str()),
        ("LEDGER_SERVE__LISTEN", "127.0.0.1:0"),
        ("LEDGER_ADMIN__LISTEN", "off"),
    ];
    let mut binary = Binary::start(&["serve"], &[&environment, more].concat());
    let url = format!("http://{}", binary.field("listen"));
    (binary, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_no_acknowledged_transaction() {
    let database = TestDatabase::new().await;
    let (binary, url) = start(&database, &[]);
    let load = load(&url);
    load.until_acknowledged(300).await;
    binary.kill();
    let known = load.ended().await;
    nothing_is_lost_or_doubled(&database, &known).await;
}

/// Seen to fail when the process did not notice that a writer had ended: it continued without that writer.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_panics_ends_the_process_and_loses_no_acknowledged_transaction() {
    let database = TestDatabase::new().await;
    let (binary, url) = start(&database, &[("LEDGER_FAIL_POINT", "serve/committed@50:panic")]);
    let load = load(&url);
    let (status, stderr) = binary.ended_within(DEADLINE);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("a writer ended unexpectedly"), "{stderr}");
    let known = load.ended().await;
    nothing_is_lost_or_doubled(&database, &known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_answers_all_accepted_requests_and_ends_within_5_s() {
    let database = TestDatabase::new().await;
    let (binary, url) = start(&database, &[]);
    let load = load(&url);
    load.until_acknowledged(300).await;
    binary.stop();
    let known = load.ended().await;
    // A client stops at its first lost connection, so it has at most one request without an answer.
    let unanswered: HashSet<_> = known.iter().filter(|(_, id)| id.is_none()).map(|(key, _)| key).collect();
    assert!(unanswered.len() <= usize::try_from(CLIENTS).unwrap(), "{unanswered:?}");
    nothing_is_lost_or_doubled(&database, &known).await;
}

/// A constraint trigger runs within the commit, after the rows were sent.
///
/// Seen to fail when the row that a writing statement returns was taken for its commit: 201 for a transaction that is not in
/// the ledger.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_is_not_acknowledged() {
    let api = Api::start().await;
    let body = transaction("acct-1", "credit", "10.00", "EUR");
    for key in ["order-0001", "order-0002"] {
        assert_eq!(api.post(key, &body).await.status, 201);
    }
    let client = api.database.client().await;
    let fails = "CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN RAISE EXCEPTION 'no space' USING ERRCODE = 'disk_full'; END $$;
                 CREATE CONSTRAINT TRIGGER fails AFTER INSERT OR UPDATE ON accounts
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION disk_full()";
    client.batch_execute(fails).await.unwrap();
    assert_eq!(api.post("order-0003", &body).await.status, 503, "a transaction of a known account");
    let other = transaction("acct-2", "credit", "10.00", "EUR");
    assert_eq!(api.post("order-0004", &other).await.status, 503, "a transaction of a new account");
    let headers = [("content-type", "application/json")];
    for account in ["acct-1", "acct-2"] {
        let put = br#"{"currency": "EUR", "min_balance": "-5.00"}"#.to_vec();
        let answer = api.send("PUT", &format!("/accounts/{account}"), &headers, put).await;
        assert_eq!(answer.status, 503, "the limit of {account}");
    }
    client.batch_execute("DROP TRIGGER fails ON accounts").await.unwrap();
    assert_eq!(api.database.value("SELECT count(*) FROM transactions").await, "2");
    assert_eq!(api.post("order-0003", &body).await.status, 201);
    assert_eq!(api.database.value("SELECT count(*) FROM accounts WHERE min_balance IS NULL").await, "1");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_database_connections_are_503_and_are_replaced() {
    let database = TestDatabase::new().await;
    let (binary, url) = start(&database, &[]);
    let load = load(&url);
    let client = database.client().await;
    let mut wanted = 0;
    for _ in 0..10 {
        // The service makes progress between the losses.
        wanted += 20;
        load.until_acknowledged(wanted).await;
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name LIKE 'ledger serve%'";
        let ended: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
        assert!(ended > 0);
        wanted = wanted.max(load.acknowledged.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    load.until_acknowledged(wanted + 20).await;
    load.stop.store(true, Ordering::Relaxed);
    let known = load.ended().await;
    binary.stop();
    nothing_is_lost_or_doubled(&database, &known).await;
}
