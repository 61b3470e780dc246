//! Kafka, PostgreSQL and the network fail under load and come back.

use std::time::{Duration, Instant};

use ledger::event::TRANSACTIONS_TOPIC;
use nix::sys::signal::Signal;

use crate::support::{
    binary::get,
    clients::{Clients, timed},
    eventually,
    own_kafka::OwnKafka,
    own_postgres::OwnPostgres,
    system::System,
};

const CLIENTS: usize = 8;
const ACCOUNTS: usize = 40;
const PAUSE: Duration = Duration::from_millis(10);

/// Returns the minimum length of the Kafka outage. `LEDGER_TEST_OUTAGE_SECONDS` sets it, to try outages that are too
/// long for CI.
fn outage() -> Duration {
    let seconds = std::env::var("LEDGER_TEST_OUTAGE_SECONDS").ok();
    Duration::from_secs(seconds.map_or(0, |text| text.parse().expect("a number of seconds")))
}

async fn nothing_differs(clients: Clients, system: &System) {
    let known = clients.finish().await;
    let differences = known.differences(&system.database).await;
    assert!(differences.is_empty(), "{differences:#?}");
    system.is_whole().await;
}

/// Seen to fail with these bugs: a transient error of the broker is treated as a refusal, which ends the relay; a
/// partition's pause can end in the middle of an outbox scan, so that later rows of an account are published first.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_accepted_during_a_kafka_outage_and_published_after_it() {
    let Some(system) = System::on_kafka().await else { return };
    let (serve, url) = system.serve(&[]);
    let (relay, consumer) = (system.relay(&[]), system.consumer(&[]));
    let clients = Clients::start(&[url], CLIENTS, ACCOUNTS, PAUSE);
    clients.more(200).await;
    for _ in 0..2 {
        system.kafka().broker.signal(Signal::SIGKILL);
        let (began, before) = (Instant::now(), clients.count());
        clients.more(400).await;
        while began.elapsed() < outage() {
            clients.more(1).await;
        }
        let waiting = system.count("outbox").await;
        assert!(waiting > 200, "the outbox grows");
        let (away, accepted) = (began.elapsed(), clients.count() - before);
        system.kafka().broker.up().await;
        let drained = timed("the backlog drains", async || system.count("outbox").await < 50).await;
        println!(
            "Kafka away for {away:.1?}: {accepted} accepted, {waiting} waiting, drained {drained:.1?} after it came back"
        );
    }
    nothing_differs(clients, &system).await;
    for role in [serve, relay, consumer] {
        role.stop();
    }
}

/// Seen to fail with this planted bug: a request without an answer is treated as a success.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_delays_resets_cuts_and_crawls_loses_and_reorders_nothing() {
    let Some(system) = System::on_kafka().await else { return };
    let (serve, url) = system.serve(&[]);
    let (relay, consumer) = (system.relay(&[]), system.consumer(&[]));
    let clients = Clients::start(&[url], CLIENTS, ACCOUNTS, PAUSE);
    let proxy = &system.kafka().proxy;
    let flows = async || clients.more(60).await;
    flows().await;
    // Longer than the time limit of a request: the relay retries, and then the first request arrives after all.
    proxy.hold(true);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    proxy.hold(false);
    flows().await;
    for bytes in [1, 200, 3_000, 9_000] {
        proxy.cut_after(bytes);
        flows().await;
    }
    proxy.reset();
    flows().await;
    proxy.slow(Duration::from_millis(150));
    flows().await;
    proxy.slow(Duration::ZERO);
    proxy.swallow(true);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    proxy.swallow(false);
    proxy.cut();
    flows().await;
    nothing_differs(clients, &system).await;
    for role in [serve, relay, consumer] {
        role.stop();
    }
}

/// Seen to fail with this planted bug: an error of the database is treated as a fault of the record.
#[tokio::test(flavor = "multi_thread")]
async fn postgresql_crashes_and_restarts_while_all_roles_are_at_work() {
    let mut postgres = OwnPostgres::start().await;
    let Some(kafka) = OwnKafka::start().await else { return };
    let system = System::with(crate::support::postgres::TestDatabase::at(&postgres.url()), kafka).await;
    let (serve, url) = system.serve(&[]);
    let (relay, consumer) = (system.relay(&[]), system.consumer(&[]));
    let clients = Clients::start(&[url], CLIENTS, ACCOUNTS, PAUSE);
    for round in 0..4 {
        clients.more(150).await;
        match round % 2 {
            0 => postgres.crash().await,
            _ => postgres.down().await,
        }
        postgres.up().await;
    }
    clients.more(150).await;
    nothing_differs(clients, &system).await;
    assert_eq!(
        system.count("dead_letters").await,
        0,
        "an outage of the database is not the fault of a record"
    );
    for role in [serve, relay, consumer] {
        role.stop();
    }
}

/// PostgreSQL refuses inserts with the error of a full disk, in one growing table after the other.
///
/// Seen to fail when `serve` answered 500, and when the relay treated the error as a refusal and ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_503_and_all_roles_wait_for_space() {
    let system = System::on_postgres().await;
    let (serve, url) = system.serve(&[]);
    let (relay, consumer) = (system.relay(&[]), system.consumer(&[]));
    let clients = Clients::start(&[url], CLIENTS, ACCOUNTS, PAUSE);
    clients.more(100).await;
    let client = system.database.client().await;
    let full = "CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          RAISE EXCEPTION USING ERRCODE = 'disk_full',
            MESSAGE = 'could not extend file \"base/16384/16509\": No space left on device'; END $$";
    client.batch_execute(full).await.expect("created");
    for table in ["transactions", "broker_records", "risk_assessments"] {
        let sql = format!("CREATE TRIGGER disk_full BEFORE INSERT ON {table} EXECUTE FUNCTION disk_full()");
        client.batch_execute(&sql).await.expect("full");
        eventually("clients get 503", async || clients.answers(503) > 0 || table != "transactions").await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        client.batch_execute(&format!("DROP TRIGGER disk_full ON {table}")).await.expect("freed");
        clients.more(100).await;
    }
    nothing_differs(clients, &system).await;
    assert_eq!(system.count("dead_letters").await, 0);
    for role in [serve, relay, consumer] {
        role.stop();
    }
}

/// Seen to fail with this planted bug: the consumer continues with the first record that is left.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_retention_removed_halt_their_partition_and_no_other() {
    let Some(system) = System::on_kafka().await else { return };
    let relay = system.relay(&[]);
    let consumer = system.consumer(&[]);
    system.post(0, 600, 60, |_| None).await;
    eventually("all are assessed", async || system.count("risk_assessments").await == 600).await;
    consumer.stop();
    system.post(600, 600, 60, |_| None).await;
    eventually("all are published", async || system.count("outbox").await == 0).await;
    let position = "SELECT next_offset FROM consumer_positions WHERE partition = 2";
    let before: i64 = system.database.value(position).await.parse().expect("a number");
    let file = tempfile::NamedTempFile::new().expect("file");
    let removed = before + 5;
    let json = serde_json::json!({"version": 1, "partitions":
        [{"topic": TRANSACTIONS_TOPIC, "partition": 2, "offset": removed}]});
    std::fs::write(file.path(), json.to_string()).expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let tool = "org.apache.kafka.tools.DeleteRecordsCommand";
    system.kafka().broker.tool(tool, &["--offset-json-file", path]).await;

    let mut consumer = system.consumer(&[]);
    let admin = consumer.field("admin");
    let others = "risk_assessments r WHERE account_seq > 10";
    let of_others =
        (0..60).filter(|n| ledger::event::partition_of(format!("acct-{n}").as_bytes(), 6) != 2).count() * 10;
    eventually("the other partitions continue", async || system.count(others).await == of_others).await;
    eventually("the metric reports the halted partition", async || {
        let (_, metrics) = get(&admin, "/metrics").expect("metrics");
        metrics.lines().any(|line| {
            line.starts_with("ledger_consumer_halted")
                && line.contains("partition=\"2\"")
                && line.ends_with(" 1")
        })
    })
    .await;
    consumer.line_with("nothing is skipped");
    assert_eq!(system.database.value(position).await, before.to_string(), "the position has not moved");
    consumer.stop();
    relay.stop();
}
