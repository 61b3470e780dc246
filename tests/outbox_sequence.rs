//! Sequences that are behind their rows: refused at the start, moved by `ledger migrate`, and harmless under a running
//! relay.

use std::{
    process::Output,
    time::{Duration, Instant},
};

use ledger::repository::sequences::SEQUENCES;

use crate::support::{
    api::{Api, transaction},
    binary::get,
    eventually,
    postgres::TestDatabase,
    system::System,
};

/// The commands that write rows, each with the rest of its command line.
const WRITING: [&[&str]; 5] =
    [&["serve"], &["relay"], &["consume-risk"], &["aggregate"], &["republish", "--missing", "--dry-run"]];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that the command fails with one line that has these parts.
fn is_refused(command: &[&str], output: &Output, parts: &[&str]) {
    let stderr = text(&output.stderr);
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.contains("accept_data_loss allows")).collect();
    assert_eq!((output.status.code(), lines.len()), (Some(1), 1), "{command:?}: {stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{command:?}: {part}: {stderr}");
    }
}

/// A logical switch-over copies the outbox but not its sequence. Seen to fail without the check: the roles started.
#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_behind_the_outbox_is_refused_until_migrate_moves_it() {
    let system = System::on_postgres().await;
    system.post(0, 10, 1, |_| None).await;
    system.database.value("SELECT setval('outbox_id', 1)").await;
    for command in WRITING {
        let parts = ["outbox_id is at 1", "has the id 10", "run `ledger migrate`"];
        is_refused(command, &system.run(command), &parts);
    }
    let migrated = system.run(&["migrate"]);
    let printed = text(&migrated.stdout);
    assert!(
        migrated.status.success() && printed.contains("moved the sequence outbox_id from 1 to 10"),
        "{printed}"
    );
    assert!(!text(&system.run(&["migrate"]).stdout).contains("moved"), "once");
    system.post(10, 10, 1, |_| None).await;
    let (relay, consumer) = (system.relay(&[]), system.consumer(&[]));
    assert_eq!(system.differences().await, [""; 0]);
    relay.stop();
    consumer.stop();
}

/// Seen to fail without the check: `aggregate` started.
#[tokio::test(flavor = "multi_thread")]
async fn identity_columns_are_checked_and_moved_too() {
    let system = System::on_postgres().await;
    let rows = "INSERT INTO aggregate_runs (id, mode, status) OVERRIDING SYSTEM VALUE VALUES (7, 'touched', 'failed');
                INSERT INTO dead_letters (id, consumer_group, topic, headers, stage, reason, error, attempts)
                VALUES (gen_random_uuid(), 'relay', 't', '[]', 'publish', 'record_invalid', 'e', 1);
                INSERT INTO dead_letter_replays (id, dead_letter_id, replayed_by, outcome) OVERRIDING SYSTEM VALUE
                SELECT 9, id, 'me', 'failing' FROM dead_letters";
    system.database.client().await.batch_execute(rows).await.expect("inserted");
    is_refused(&["aggregate"], &system.run(&["aggregate"]), &["aggregate_runs_id_seq is at 0", "the id 7"]);
    let printed = text(&system.run(&["migrate"]).stdout);
    for moved in ["aggregate_runs_id_seq from 0 to 7", "dead_letter_replays_id_seq from 0 to 9"] {
        assert!(printed.contains(moved), "{moved}: {printed}");
    }
    assert!(system.run(&["aggregate"]).status.success());
    assert_eq!(system.database.value("SELECT max(id) FROM aggregate_runs").await, "8");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sequence_of_the_schema_is_checked() {
    let names =
        "SELECT string_agg(sequencename::text, ' ' ORDER BY sequencename COLLATE \"C\") FROM pg_sequences";
    assert_eq!(TestDatabase::new().await.value(names).await, SEQUENCES.join(" "));
}

/// Posts for a while under a running relay, which raises its scan floors at most once a second, and only while there are
/// rows. Returns the number of transactions.
async fn publish_until_the_floors_have_risen(system: &System) -> usize {
    let (mut posted, enough) = (0, Instant::now() + Duration::from_secs(4));
    while Instant::now() < enough {
        system.post(posted, 8, 8, |_| None).await;
        posted += 8;
        eventually("published", async || system.count("outbox").await == 0).await;
    }
    posted
}

/// Seen to fail without the check of the floors: the gauges stayed at 0.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_sequence_that_is_set_back_under_a_running_relay_are_counted_and_published() {
    let system = System::on_postgres().await;
    let mut relay = system.relay(&[]);
    let admin = relay.field("admin");
    let posted = publish_until_the_floors_have_risen(&system).await;
    let client = system.database.client().await;
    client.batch_execute("SELECT setval('outbox_id', 1)").await.expect("set back");
    client.batch_execute("BEGIN; LOCK TABLE broker_partitions IN EXCLUSIVE MODE").await.expect("locked");
    system.post(posted, 8, 8, |_| None).await;
    let gauge = |name: &str| {
        let (_, page) = get(&admin, "/metrics").expect("metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).map(str::to_owned);
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_default()
    };
    eventually("the gauges count the rows", async || {
        gauge("ledger_outbox_rows") >= 8.0 && gauge("ledger_outbox_oldest_age_seconds") > 0.0
    })
    .await;
    client.batch_execute("COMMIT").await.expect("unlocked");
    relay.line_with("the sequence outbox_id was set back");
    eventually("published", async || system.count("outbox").await == 0).await;
    let consumer = system.consumer(&[]);
    assert_eq!(system.differences().await, [""; 0]);
    relay.stop();
    consumer.stop();
}

/// Rows that were put back by hand are below the floors although the sequence is not. Seen to fail when only the sequence
/// was compared.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_put_back_below_the_floors_is_published() {
    let system = System::on_postgres().await;
    let mut relay = system.relay(&[]);
    publish_until_the_floors_have_risen(&system).await;
    let row = "INSERT INTO outbox (lane, id, topic, key, value, event_id, event_type)
               SELECT lane, 1, 'transactions.v1', 'k', 'v', gen_random_uuid(), 'Test' FROM generate_series(0, 31) AS l (lane)";
    system.database.client().await.batch_execute(row).await.expect("inserted");
    relay.line_with("a row appeared below ids that were published");
    eventually("published", async || system.count("outbox").await == 0).await;
    relay.stop();
}

/// Seen to fail when every unique violation counted as the request's fault: the answer was 500.
#[tokio::test(flavor = "multi_thread")]
async fn a_taken_id_of_the_outbox_is_503_and_a_retry_succeeds() {
    let api = Api::start().await;
    let body = transaction("a", "credit", "1.00", "EUR");
    for key in ["1", "2", "3"] {
        assert_eq!(api.post(key, &body).await.status, 201);
    }
    let database = TestDatabase::at(&api.database.url);
    database.value("SELECT setval('outbox_id', 1, false)").await;
    let mut statuses = Vec::new();
    while statuses.last() != Some(&201) && statuses.len() < 9 {
        statuses.push(api.post("4", &body).await.status);
    }
    assert_eq!((statuses.first(), statuses.last()), (Some(&503), Some(&201)), "{statuses:?}");
    assert!(!statuses.contains(&500), "{statuses:?}");
    assert_eq!(database.value("SELECT count(*) FROM outbox").await, "4");
    api.stop().await;
}
