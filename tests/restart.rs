//! PostgreSQL restarts while clients post: requests get 503 meanwhile, and `serve` recovers by itself.
//!
//! Seen to fail when a refused connection was treated as a bug (500 instead of 503).

use std::sync::atomic::Ordering;

use crate::support::{
    api::Api,
    load::{load, nothing_is_lost_or_doubled},
    postgres::TestDatabase,
    server::Server,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_postgresql_under_load_is_503_and_serve_recovers() {
    let mut server = Server::start(&[]).await;
    let api = Api::on(TestDatabase::at(&server.url()), &[("serve.request_timeout", "2s")]).await;
    let load = load(&api.url);
    for round in 1..=2 {
        load.until_acknowledged(load.acknowledged.load(Ordering::Relaxed) + 50).await;
        server.down().await;
        api.get("/accounts/a0/balance").await.is_problem(503, "unavailable");
        let answer = api.get("/transactions").await;
        answer.is_problem(503, "unavailable");
        assert!(answer.headers.contains_key("retry-after"), "round {round}: {answer:?}");
        server.up().await;
    }
    load.until_acknowledged(load.acknowledged.load(Ordering::Relaxed) + 50).await;
    assert_eq!(api.get("/accounts/a0/balance").await.status, 200);
    load.stop.store(true, Ordering::Relaxed);
    let known = load.ended().await;
    api.stop().await;
    nothing_is_lost_or_doubled(&TestDatabase::at(&server.url()), &known).await;
}
