//! A key whose first request is still in flight, or whose answer was lost during the commit.
//!
//! Seen to fail with these bugs:
//!
//! - the existing keys are read before the account is locked (the second instance answers 500);
//! - the statement timeout is a thousand times as long, or the queue a hundred times as long;
//! - a commit with an unknown result is answered 500, or retried under another key, or its connection is kept;
//! - neither the wait for an answer nor the wait for a commit has a limit (either limit alone is enough).

use std::{sync::Arc, time::Instant};

use crate::support::{
    api::{Answer, Api, transaction},
    eventually,
    postgres::TestDatabase,
    proxy::Proxy,
};

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
    AND datname = current_database() AND application_name LIKE 'ledger serve%'";

/// Locks the account's row in a separate transaction. The lock lasts until the client commits.
async fn hold(database: &TestDatabase, account: &str) -> tokio_postgres::Client {
    let client = database.client().await;
    let lock = format!("BEGIN; SELECT 1 FROM accounts WHERE account_id = '{account}' FOR UPDATE");
    client.batch_execute(&lock).await.unwrap();
    client
}

fn post(api: &Arc<Api>, key: &str, account: &str) -> tokio::task::JoinHandle<Answer> {
    let (api, key, account) = (Arc::clone(api), key.to_owned(), account.to_owned());
    tokio::spawn(async move { api.post(&key, &transaction(&account, "credit", "1.00", "EUR")).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_flight_on_another_instance_is_awaited_and_replayed() {
    let one = Arc::new(Api::start().await);
    let other = Arc::new(Api::on(TestDatabase::at(&one.database.url), &[]).await);
    assert_eq!(one.post("0", &transaction("a", "credit", "1.00", "EUR")).await.status, 201);
    let held = hold(&one.database, "a").await;
    let posts = [post(&one, "k", "a"), post(&other, "k", "a")];
    eventually("both wait", async || one.database.value(WAITING).await == "2").await;
    held.batch_execute("COMMIT").await.unwrap();
    let [first, second] = posts;
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!((statuses, first.body), ([200, 201], second.body));
    assert_eq!(one.database.value("SELECT count(*) FROM transactions").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_during_the_commit_is_503_and_the_retry_replays() {
    let database = TestDatabase::new().await;
    let config: tokio_postgres::Config = database.url.parse().unwrap();
    let port = config.get_ports()[0];
    let proxy = Proxy::start(([127, 0, 0, 1], port).into()).await;
    let through = database.url.replace(&format!("127.0.0.1:{port}"), &proxy.address.to_string());
    let api = Arc::new(Api::on(TestDatabase::at(&through), &[]).await);
    // New accounts take the locked path, known ones the expected path. Both end in a commit.
    for (round, account) in ["a", "a", "b"].into_iter().enumerate() {
        // The previous round cut the connection of another writer too, and that writer notices it only now.
        eventually("the account is open", async || {
            api.post(&format!("0{round}"), &transaction(account, "credit", "1.00", "EUR")).await.status < 300
        })
        .await;
        let held = hold(&database, account).await;
        let key = format!("k{round}");
        let lost = post(&api, &key, account);
        eventually("it waits", async || database.value(WAITING).await == "1").await;
        // The server has the request; its answer will be lost.
        proxy.swallow(true);
        held.batch_execute("COMMIT").await.unwrap();
        let id = format!("SELECT id FROM transactions WHERE idempotency_key = '{key}'");
        let client = database.client().await;
        eventually("it is committed", async || !client.query(&id, &[]).await.unwrap().is_empty()).await;
        proxy.cut();
        proxy.swallow(false);
        let lost = lost.await.unwrap();
        lost.is_problem(503, "unavailable");
        assert!(
            lost.headers.contains_key("retry-after")
                && lost.json()["detail"].as_str().unwrap().contains("unknown")
        );
        let mut retry = post(&api, &key, account).await.unwrap();
        while retry.status == 503 {
            retry = post(&api, &key, account).await.unwrap();
        }
        assert_eq!((retry.status, retry.replayed), (200, true), "{retry:?}");
        assert_eq!(retry.json()["id"], database.value(&id).await);
    }
    assert_eq!(database.value("SELECT count(*) FROM transactions").await, "6");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_too_long_is_503_in_time_and_the_service_recovers() {
    let api = Arc::new(Api::start_with(&[("serve.request_timeout", "1s")]).await);
    assert_eq!(api.post("0", &transaction("a", "credit", "1.00", "EUR")).await.status, 201);
    let held = hold(&api.database, "a").await;
    let started = Instant::now();
    let answer = api.post("1", &transaction("a", "credit", "1.00", "EUR")).await;
    answer.is_problem(503, "unavailable");
    assert!(answer.headers.contains_key("retry-after"));
    assert!(started.elapsed().as_secs() < 9, "{:?}", started.elapsed());
    held.batch_execute("COMMIT; BEGIN; LOCK TABLE transactions IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let started = Instant::now();
    api.get("/transactions").await.is_problem(503, "unavailable");
    assert!(started.elapsed().as_secs() < 9, "{:?}", started.elapsed());
    held.batch_execute("COMMIT").await.unwrap();
    eventually("a posting is accepted", async || {
        let answer = api.post("1", &transaction("a", "credit", "1.00", "EUR")).await;
        assert!([200, 201, 503].contains(&answer.status), "{answer:?}");
        answer.status != 503
    })
    .await;
    assert_eq!(api.get("/transactions").await.json()["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_runs_too_long_is_cancelled() {
    let api = Api::start_with(&[("database.statement_timeout", "300ms")]).await;
    let held = api.database.client().await;
    held.batch_execute("BEGIN; LOCK TABLE transactions IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let started = Instant::now();
    api.get("/transactions").await.is_problem(503, "unavailable");
    assert!(started.elapsed().as_secs() < 9, "{:?}", started.elapsed());
    held.batch_execute("COMMIT").await.unwrap();
    assert_eq!(api.get("/transactions").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_503_at_once() {
    let few = [("serve.writers", "1"), ("serve.queue_size_max", "2")];
    let api = Arc::new(Api::start_with(&few).await);
    assert_eq!(api.post("0", &transaction("a", "credit", "1.00", "EUR")).await.status, 201);
    let held = hold(&api.database, "a").await;
    let mut waiting = vec![post(&api, "first", "a")];
    eventually("the writer waits", async || api.database.value(WAITING).await == "1").await;
    waiting.extend((0..10).map(|n| post(&api, &format!("k{n}"), &format!("b{n}"))));
    // Two of the ten fit into the queue; the others are answered while the writer still waits.
    eventually("the others are answered", async || {
        waiting.iter().filter(|post| post.is_finished()).count() == 8
    })
    .await;
    held.batch_execute("COMMIT").await.unwrap();
    let mut statuses = Vec::new();
    for post in waiting {
        let answer = post.await.unwrap();
        if answer.status == 503 {
            assert!(answer.headers.contains_key("retry-after"));
            assert!(
                answer.json()["detail"].as_str().unwrap().contains("queue of waiting requests is full"),
                "{answer:?}"
            );
        }
        statuses.push(answer.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [[201; 3].as_slice(), &[503; 8]].concat());
}
