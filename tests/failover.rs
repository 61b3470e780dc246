//! A standby takes over. `serve` follows without a restart, whether the primary is down, read-only or hangs, and no
//! acknowledged transaction is lost.
//!
//! Seen to fail with these bugs:
//!
//! - the driver tries the hosts by itself (a hanging primary uses up all the time, and the standby is never tried);
//! - pooled connections are not checked (readers stay on the old primary for ever);
//! - a writer's memory outlives its connection (balances of a lost history);
//! - the relay does not check whether its server accepts writes (it scans the old outbox for ever).

use std::sync::atomic::Ordering;

use ledger::relay;

use crate::support::{
    api::{Api, transaction},
    eventually,
    load::{load, nothing_is_lost_or_doubled},
    postgres::{TestDatabase, client},
    proxy::Proxy,
    server::Server,
};

async fn promote(standby: &Server) {
    client(&standby.url()).await.batch_execute("SELECT pg_promote()").await.expect("promoted");
}

async fn pair() -> (Server, Server) {
    let mut primary = Server::start(&["wal_level=replica", "max_wal_senders=5"]).await;
    let standby = primary.standby().await;
    (primary, standby)
}

fn both(primary: &Server, standby: &Server) -> String {
    primary.url_at(&format!("127.0.0.1:{},127.0.0.1:{}", primary.port(), standby.port()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_takes_over_under_load_and_nothing_acknowledged_is_lost() {
    let (mut primary, standby) = pair().await;
    let administrator = client(&primary.url()).await;
    administrator.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
    administrator.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    eventually("the standby is synchronous", async || {
        administrator.query_one(synchronous, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let url = both(&primary, &standby);
    let api = Api::on(TestDatabase::at(&url), &[("serve.request_timeout", "2s")]).await;
    let load = load(&api.url);
    load.until_acknowledged(100).await;
    primary.down().await;
    promote(&standby).await;
    load.until_acknowledged(load.acknowledged.load(Ordering::Relaxed) + 100).await;
    assert_eq!(api.get("/accounts/a0/balance").await.status, 200);
    load.stop.store(true, Ordering::Relaxed);
    let known = load.ended().await;
    api.stop().await;
    nothing_is_lost_or_doubled(&TestDatabase::at(&standby.url()), &known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_and_readers_leave_a_primary_that_became_read_only() {
    let (primary, standby) = pair().await;
    let api = Api::on(TestDatabase::at(&both(&primary, &standby)), &[]).await;
    // An idle relay: only its leases fail on the read-only server, its scans succeed there.
    let relaying = api.database.context_with(&[("relay.lease_ttl", "2s")]);
    let relay = tokio::spawn(relay::run(relaying.clone()));
    assert_eq!(api.post("1", &transaction("a", "credit", "1.00", "EUR")).await.status, 201);
    assert_eq!(api.get("/accounts/a/balance").await.json()["balance"], "1.00");
    let outbox = "SELECT count(*) FROM outbox";
    eventually("the outbox is empty", async || api.database.value(outbox).await == "0").await;
    let caught_up = "SELECT count(*) FROM transactions";
    eventually("the standby has the row", async || {
        let standby = client(&standby.url()).await;
        standby.query_one(caught_up, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    promote(&standby).await;
    // The old primary stays up. All its sessions are read-only from now on, open ones too.
    let old = client(&primary.url()).await;
    old.batch_execute("ALTER SYSTEM SET default_transaction_read_only = on").await.unwrap();
    old.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let set = "SELECT current_setting('default_transaction_read_only')";
    eventually("read-only", async || old.query_one(set, &[]).await.unwrap().get::<_, String>(0) == "on")
        .await;
    // The writer's connection fails once with 25006; then the writer uses the new primary.
    eventually("a posting is accepted", async || {
        let answer = api.post("2", &transaction("a", "credit", "2.00", "EUR")).await;
        assert!([201, 503].contains(&answer.status), "{answer:?}");
        answer.status == 201
    })
    .await;
    // Idle connections of readers are checked at once, and PUT reaches a server that accepts writes.
    eventually("readers have followed", async || {
        api.get("/accounts/a/balance").await.json()["balance"] == "3.00"
    })
    .await;
    let limit = br#"{"currency":"EUR","min_balance":"0.00"}"#.to_vec();
    let put = api.send("PUT", "/accounts/a", &[("content-type", "application/json")], limit).await;
    assert_eq!(put.status, 200, "{put:?}");
    let kept = "SELECT balance FROM accounts";
    assert_eq!(
        old.query_one(kept, &[]).await.unwrap().get::<_, i64>(0),
        100,
        "nothing reached the old primary"
    );
    let new = client(&standby.url()).await;
    eventually("the relay has followed", async || {
        new.query_one(outbox, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    relaying.stop.request();
    relay.await.expect("no panic").expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_hangs_is_skipped() {
    let (primary, standby) = pair().await;
    let proxy = Proxy::start(([127, 0, 0, 1], primary.port()).into()).await;
    let url = primary.url_at(&format!("{},127.0.0.1:{}", proxy.address, standby.port()));
    let limits = [("serve.request_timeout", "1s"), ("database.connect_timeout", "1s")];
    let api = Api::on(TestDatabase::at(&url), &limits).await;
    assert_eq!(api.post("1", &transaction("a", "credit", "1.00", "EUR")).await.status, 201);
    assert_eq!(api.get("/accounts/a/balance").await.status, 200);
    eventually("the standby has the row", async || {
        let standby = client(&standby.url()).await;
        standby.query_one("SELECT count(*) FROM transactions", &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    // Connections stay open and new ones are accepted, but get no answer.
    proxy.swallow(true);
    promote(&standby).await;
    eventually("a posting is accepted", async || {
        let answer = api.post("2", &transaction("a", "credit", "2.00", "EUR")).await;
        assert!([200, 201, 503].contains(&answer.status), "{answer:?}");
        answer.status != 503
    })
    .await;
    eventually("readers have followed", async || api.get("/accounts/a/balance").await.status == 200).await;
    assert_eq!(api.get("/accounts/a/balance").await.json()["balance"], "3.00");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_a_writer_ends_with_its_connection() {
    let api = Api::start_with(&[("serve.writers", "1")]).await;
    assert_eq!(api.post("1", &transaction("a", "credit", "5.00", "EUR")).await.status, 201);
    // As after an asynchronous failover: our commit is lost, and another instance's commit took its place.
    let client = api.database.client().await;
    let other_history = "SET session_replication_role = replica;
        UPDATE transactions SET amount = 700, balance_after = 700, idempotency_key = 'other';
        UPDATE accounts SET balance = 700;
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'ledger serve%'";
    client.batch_execute(other_history).await.unwrap();
    // A posting to another account meets the lost connection.
    eventually("the writer is back", async || {
        api.post("2", &transaction("b", "credit", "1.00", "EUR")).await.status == 201
    })
    .await;
    let answer = api.post("3", &transaction("a", "credit", "1.00", "EUR")).await;
    assert_eq!((answer.status, answer.json()["balance_after"].as_str()), (201, Some("8.00")));
    assert_eq!(api.post("1", &transaction("a", "credit", "5.00", "EUR")).await.status, 201, "posted again");
}
