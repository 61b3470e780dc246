//! What was acknowledged is in the ledger, once, whatever happens to the process or to its connections.
//!
//! Seen to fail when planted: answering before the commit (kill -9 loses acknowledged rows), answering 500 for a lost
//! connection, and dropping queued requests at SIGTERM.

use std::{collections::HashSet, sync::atomic::Ordering, time::Duration};

use crate::support::{
    DEADLINE,
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
async fn kill_9_loses_nothing_that_was_acknowledged() {
    let database = TestDatabase::new().await;
    let (binary, url) = start(&database, &[]);
    let load = load(&url);
    load.until_acknowledged(300).await;
    binary.kill();
    let known = load.ended().await;
    nothing_is_lost_or_doubled(&database, &known).await;
}

/// Seen to fail when nobody waited for the end of a writer: the process went on without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_panics_ends_the_process_and_loses_nothing_that_was_acknowledged() {
    let database = TestDatabase::new().await;
    let (binary, url) = start(&database, &[("LEDGER_FAIL_POINT", "serve/committed@50:panic")]);
    let load = load(&url);
    let (status, stderr) = binary.ended_within(DEADLINE);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("a writer ended by itself"), "{stderr}");
    let known = load.ended().await;
    nothing_is_lost_or_doubled(&database, &known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_answers_everything_accepted_and_ends_within_5_s() {
    let database = TestDatabase::new().await;
    let (binary, url) = start(&database, &[]);
    let load = load(&url);
    load.until_acknowledged(300).await;
    binary.stop();
    let known = load.ended().await;
    // A client stops at its first lost connection, so each has at most one request without an answer.
    let unanswered: HashSet<_> = known.iter().filter(|(_, id)| id.is_none()).map(|(key, _)| key).collect();
    assert!(unanswered.len() <= usize::try_from(CLIENTS).unwrap(), "{unanswered:?}");
    nothing_is_lost_or_doubled(&database, &known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_database_connections_are_503_and_heal_by_themselves() {
    let database = TestDatabase::new().await;
    let (binary, url) = start(&database, &[]);
    let load = load(&url);
    let client = database.client().await;
    let mut wanted = 0;
    for _ in 0..10 {
        // Progress between the blows: it heals each time.
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
