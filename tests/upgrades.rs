//! The schema of the next release under this release: roles keep running while it is applied, and start on it again when
//! the next release is taken back. The next release is played by statements that expand the schema as
//! `migrations/README.md` allows.

use std::{
    process::Output,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde_json::Value;

use crate::support::{
    api::{client, transaction},
    eventually,
    system::System,
};

/// Migrations that older binaries do not notice, and the record of the last. Each statement is a database transaction of
/// its own: two strong locks in one could deadlock with the running roles.
const NEXT_SCHEMA: &str = "
    ALTER TABLE transactions ADD COLUMN next_release text, ADD COLUMN next_default bigint NOT NULL DEFAULT 0;
    ALTER TABLE accounts ADD COLUMN next_release text;
    ALTER TABLE outbox ADD COLUMN next_release text;
    ALTER TABLE risk_assessments ADD COLUMN next_release text;
    ALTER TABLE consumer_positions ADD COLUMN next_release text;
    ALTER TABLE leases ADD COLUMN next_release text;
    ALTER TABLE dead_letters ADD COLUMN next_release text;
    ALTER TABLE broker_records ADD COLUMN next_release text;
    ALTER TABLE fact_transactions ADD COLUMN next_release text;
    ALTER TABLE fact_account_day ADD COLUMN next_release text;
    ALTER TABLE fact_marks ADD COLUMN next_release text;
    CREATE TABLE next_release (id bigint PRIMARY KEY);
    INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000000')";

/// Says that only the next release may run on its schema.
const BREAKING: &str = "UPDATE schema_compatibility SET oldest_binary = '29990101000000'";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{} {}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

async fn apply_next_schema(system: &System) {
    let client = system.database.client().await;
    for statement in NEXT_SCHEMA.split(';') {
        client.batch_execute(statement).await.expect(statement);
    }
}

/// Posts one transaction after the other until it is stopped. Every answer must be a 201.
async fn post(url: &str, name: &str, posted: &AtomicUsize, stop: &AtomicBool) {
    let client = client();
    while !stop.load(Ordering::Relaxed) {
        let number = posted.load(Ordering::Relaxed);
        let answer = client
            .post(format!("{url}/transactions"))
            .header("Idempotency-Key", format!("{name}-{number}"))
            .json(&transaction(&format!("a-{}", number % 5), "credit", "1.00", "EUR"))
            .send()
            .await
            .expect("an answer");
        let status = answer.status();
        assert_eq!(status, 201, "{:?}", answer.json::<Value>().await);
        posted.fetch_add(1, Ordering::Relaxed);
    }
}

/// Seen to fail when every newer schema was refused: no role started again.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_schema_is_applied_under_load_and_the_release_before_it_starts_again() {
    let system = System::on_postgres().await;
    let (relay, consumer) = (system.relay(&[]), system.consumer(&[]));
    let (serve, url) = system.serve(&[]);
    let (posted, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let migrate = async {
        eventually("posted before", async || posted.load(Ordering::Relaxed) > 20).await;
        apply_next_schema(&system).await;
        let before = posted.load(Ordering::Relaxed);
        eventually("posted after", async || posted.load(Ordering::Relaxed) > before + 20).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(post(&url, "old", &posted, &stop), migrate);
    for role in [serve, relay, consumer] {
        role.stop();
    }

    let (mut relay, consumer) = (system.relay(&[]), system.consumer(&[]));
    relay.line_with("the schema is newer than this binary and compatible");
    let (serve, url) = system.serve(&[]);
    let (again, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let enough = async {
        eventually("posted again", async || again.load(Ordering::Relaxed) > 20).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(post(&url, "back", &again, &stop), enough);
    assert_eq!(
        succeeds(&system.run(&["migrate"])),
        "the schema is up to date\n",
        "a hook of the old release"
    );
    succeeds(&system.run(&["aggregate"]));
    assert_eq!(system.differences().await, [""; 0]);
    let report = succeeds(&system.run(&["verify", "--output", "json"]));
    assert!(report.contains("the schema is newer (29990101000000) than this binary"), "{report}");
    let rows = posted.load(Ordering::Relaxed) + again.load(Ordering::Relaxed);
    assert_eq!(system.count("transactions").await, rows);
    for role in [serve, relay, consumer] {
        role.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_breaks_this_release_is_refused_by_every_command() {
    let system = System::on_postgres().await;
    apply_next_schema(&system).await;
    system.database.client().await.batch_execute(BREAKING).await.expect("broken");
    for command in ["serve", "relay", "consume-risk", "aggregate", "verify", "migrate"] {
        let output = system.run(&[command]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {stderr}");
        for part in ["29990101000000", "upgrade `ledger` to the release that migrated it"] {
            assert!(stderr.contains(part), "{command}: {stderr}");
        }
    }
}
