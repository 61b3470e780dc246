//! A connection pooler in front of PostgreSQL: one that keeps sessions works, one that shares them is refused.

use std::time::Duration;

use crate::support::{
    binary,
    pgbouncer::PgBouncer,
    postgres::{TestDatabase, client},
    system::System,
    whole_path::whole_path,
};

const COMMANDS: [&[&str]; 6] =
    [&["migrate"], &["serve"], &["relay"], &["consume-risk"], &["aggregate"], &["verify"]];

/// Its configuration has defaults only. So it refuses a session that begins with a parameter that PgBouncer does not know,
/// such as `options` with a `statement_timeout`.
#[tokio::test(flavor = "multi_thread")]
async fn every_role_works_with_a_pooler_that_keeps_sessions() {
    let database = TestDatabase::empty().await;
    let Some(pooler) = PgBouncer::start(&database.url, "session").await else { return };
    let system = System { database: TestDatabase::at(&pooler.url()), kafka: None };
    let migrated = system.run(&["migrate"]);
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    whole_path(&system, &database).await;
}

/// Asserts that every command is refused in one line that names the remedy, and that nothing is left in a shared session.
async fn every_command_is_refused(database: &TestDatabase, pooler: &PgBouncer) {
    let environment = [
        ("LEDGER_DATABASE__URL", pooler.url()),
        ("LEDGER_ADMIN__LISTEN", "off".into()),
        ("LEDGER_SERVE__LISTEN", "127.0.0.1:0".into()),
    ];
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for command in COMMANDS {
        let output = binary::run(command, &environment);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{command:?}: {stderr}");
        assert!(stderr.contains("set pool_mode = session"), "{command:?}: {stderr}");
    }
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(database.value(locks).await, "0");
}

/// On an idle pooler, each connection gets the same session again and again. Seen to fail when the check compared the
/// process ids of two statements: every command ran.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_pooler_that_shares_sessions_is_refused() {
    let database = TestDatabase::new().await;
    for pool_mode in ["transaction", "statement"] {
        let Some(pooler) = PgBouncer::start(&database.url, pool_mode).await else { return };
        every_command_is_refused(&database, &pooler).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_pooler_that_shares_sessions_is_refused() {
    let database = TestDatabase::new().await;
    let Some(pooler) = PgBouncer::start(&database.url, "transaction").await else { return };
    let others: Vec<_> = (0..6)
        .map(|number| {
            let url = pooler.url();
            tokio::spawn(async move {
                let client = client(&url).await;
                // The check ends the session that it was given. Another client may lose a statement with it.
                while client.batch_execute("BEGIN; SELECT pg_sleep(0.002); COMMIT").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(number)).await;
                }
            })
        })
        .collect();
    every_command_is_refused(&database, &pooler).await;
    others.iter().for_each(tokio::task::JoinHandle::abort);
}
