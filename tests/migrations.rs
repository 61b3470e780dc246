//! `ledger migrate` can be killed, stopped and repeated at any moment, and names the sessions that it waits for.

use std::process::Output;

use crate::support::{
    DEADLINE,
    binary::{self, Binary},
    eventually,
    postgres::{TestDatabase, client},
};

/// The migration that builds an index concurrently.
const MIGRATION: &str = "20261125030100";

/// Makes that migration a missing one.
const UNRECORD: &str = "DELETE FROM __diesel_schema_migrations WHERE version = '20261125030100'";

struct Scene {
    database: TestDatabase,
}

impl Scene {
    /// Returns a database without the index and the record of its migration.
    async fn without_the_index() -> Self {
        let scene = Self { database: TestDatabase::new().await };
        scene.execute(&format!("{UNRECORD}; DROP INDEX risk_assessments_by_level")).await;
        scene
    }

    async fn execute(&self, sql: &str) {
        self.database.client().await.batch_execute(sql).await.expect(sql);
    }

    fn environment(&self) -> [(&str, &str); 2] {
        [("LEDGER_DATABASE__URL", self.database.url.as_str()), ("LEDGER_ADMIN__LISTEN", "off")]
    }

    fn migrate(&self) -> Output {
        binary::run(&["migrate"], &self.environment())
    }

    /// Asserts that `migrate` succeeds, and returns its log.
    fn migrates(&self) -> String {
        let output = self.migrate();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("applied {MIGRATION}\n"));
        stderr
    }

    /// Starts a `migrate` whose index build waits for the database transaction of `other`.
    async fn start_behind(&self, other: &tokio_postgres::Client) -> Binary {
        other
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM accounts")
            .await
            .unwrap();
        let mut migrate = Binary::start(&["migrate"], &self.environment());
        let line = migrate.line_with("waits for process");
        assert!(line.contains("risk_assessments_by_level") && line.contains("(a long report, "), "{line}");
        migrate
    }

    async fn other(&self) -> tokio_postgres::Client {
        client(&format!("{}?application_name=a%20long%20report", self.database.url)).await
    }

    /// Waits until no session of `migrate` is left.
    async fn is_left_by_the_server(&self) {
        let left = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'ledger migrate'";
        eventually("PostgreSQL ends the migration", async || self.database.value(left).await == "0").await;
    }

    async fn is_valid(&self) -> bool {
        let valid = "SELECT count(*) FROM pg_index
                     WHERE indexrelid = to_regclass('risk_assessments_by_level') AND indisvalid";
        self.database.value(valid).await == "1"
    }
}

/// Seen to fail when the server did not look for the client during a statement: the session of the killed process stayed,
/// with the lock of `migrate`.
#[tokio::test(flavor = "multi_thread")]
async fn a_migrate_that_is_killed_during_a_concurrent_build_can_run_again() {
    let scene = Scene::without_the_index().await;
    let other = scene.other().await;
    scene.start_behind(&other).await.kill();
    scene.is_left_by_the_server().await;
    assert!(!scene.is_valid().await);
    other.batch_execute("COMMIT").await.unwrap();
    let log = scene.migrates();
    assert!(log.contains("did not finish this index"), "{log}");
    assert!(scene.is_valid().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_cancels_a_concurrent_build_in_postgresql_too() {
    let scene = Scene::without_the_index().await;
    let other = scene.other().await;
    let migrate = scene.start_behind(&other).await;
    migrate.terminate();
    let (status, stderr) = migrate.ended_within(DEADLINE);
    assert_eq!(status.code(), Some(143));
    assert!(stderr.contains("error: stopped: a migration failed: "), "{stderr}");
    assert!(stderr.contains("20261125030100") && stderr.contains(": 57014: "), "{stderr}");
    scene.is_left_by_the_server().await;
    other.batch_execute("COMMIT").await.unwrap();
    scene.migrates();
    assert!(scene.is_valid().await);
}

/// The process ended between the end of the statement and its record. Seen to fail without IF NOT EXISTS.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_exists_as_described_is_recorded_and_another_one_is_refused() {
    let scene = Scene { database: TestDatabase::new().await };
    scene.execute(UNRECORD).await;
    let built = "SELECT relfilenode FROM pg_class WHERE relname = 'risk_assessments_by_level'";
    let file = scene.database.value(built).await;
    let log = scene.migrates();
    assert!(log.contains("exists already"), "{log}");
    assert_eq!(scene.database.value(built).await, file);

    let another = "DROP INDEX risk_assessments_by_level;
        CREATE INDEX risk_assessments_by_level ON risk_assessments (transaction_id)";
    scene.execute(&format!("{UNRECORD}; {another}")).await;
    let output = scene.migrate();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("exists with another definition (CREATE INDEX"), "{stderr}");
}

/// Seen to fail without the removal of the invalid index.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_index_is_built_again() {
    let scene = Scene { database: TestDatabase::new().await };
    let invalid =
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'risk_assessments_by_level'::regclass";
    scene.execute(&format!("{UNRECORD}; {invalid}")).await;
    scene.migrates();
    assert!(scene.is_valid().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migrate_that_waits_for_another_one_names_it_and_stops_at_once() {
    let scene = Scene::without_the_index().await;
    let other = scene.other().await;
    // The key that `migrate` locks.
    other.batch_execute("SELECT pg_advisory_lock(x'6c6564676572'::bigint)").await.unwrap();
    let mut migrate = Binary::start(&["migrate"], &scene.environment());
    let line = migrate.line_with("waiting until another");
    assert!(line.contains("(a long report, connected from 127.0.0.1 for "), "{line}");
    migrate.terminate();
    let (status, stderr) = migrate.ended_within(DEADLINE);
    assert_eq!(status.code(), Some(143));
    assert!(stderr.contains("error: stopped before anything was applied"), "{stderr}");
}
