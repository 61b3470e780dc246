//! One private PostgreSQL per test run, one database per test.
//!
//! `TestDatabase::new().await` copies a migrated template (about 50 ms), so tests run in parallel and never see each
//! other's rows. The server is the product's own [`Cluster`], so it ends with this process, even after `kill -9`.

use std::{
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use ledger::{
    config::{self, Config},
    dev::cluster::{Cluster, ClusterOptions},
    repository::{self, Connection, Pool, PooledConnection},
    runtime::{Context, DatabaseClock, Health, Outages, Stop},
};
use secrecy::ExposeSecret;

const TEMPLATE: &str = "template";

/// A migrated database of one test.
pub struct TestDatabase {
    /// The URL with user and password.
    pub url: String,
    /// The default configuration for this database, with listeners on free ports and no admin listener.
    pub config: Config,
    pool: OnceLock<Pool>,
}

impl TestDatabase {
    /// Creates a database with the current schema and no rows.
    pub async fn new() -> Self {
        Self::from_template(TEMPLATE).await
    }

    /// Creates a database without a schema, for tests of `migrate`.
    pub async fn empty() -> Self {
        Self::from_template("template1").await
    }

    /// Returns a second handle for an existing database.
    pub fn at(url: &str) -> Self {
        Self { config: config(url, &[]), url: url.to_owned(), pool: OnceLock::new() }
    }

    async fn from_template(template: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let client = administrator().await;
        client.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await.expect("database");
        let url = url(&name);
        Self { config: config(&url, &[]), url, pool: OnceLock::new() }
    }

    /// Returns the configuration with some keys changed: `[("relay.batch_size_max", "7")]`.
    pub fn config_with(&self, overrides: &[(&str, &str)]) -> Config {
        config(&self.url, overrides)
    }

    /// Returns a context for a role, with its own stop, health and metrics.
    pub fn context(&self) -> Context {
        context(self.config.clone())
    }

    /// Returns a context with some keys changed.
    pub fn context_with(&self, overrides: &[(&str, &str)]) -> Context {
        context(self.config_with(overrides))
    }

    /// Returns the pool, which is created once.
    pub fn pool(&self) -> Pool {
        self.pool.get_or_init(|| repository::pool(&self.config.database, "test").expect("pool")).clone()
    }

    /// Takes a connection from [`TestDatabase::pool`].
    pub async fn pooled(&self) -> PooledConnection {
        repository::pooled(&self.pool()).await.expect("connection")
    }

    /// Opens a connection outside of the pool.
    pub async fn connection(&self) -> Connection {
        repository::connect(&self.config.database, "test").await.expect("connection")
    }

    /// Opens a driver connection for plain SQL. It belongs to the runtime of the test.
    pub async fn client(&self) -> tokio_postgres::Client {
        client(&self.url).await
    }

    /// Changes the rows of the ledger whose description is `boom`. Their events then differ from the ledger, and a
    /// consumer dead-letters them.
    pub async fn spoil(&self) {
        self.change_descriptions("boom", "spoiled").await;
    }

    /// Undoes [`Self::spoil`].
    pub async fn repair(&self) {
        self.change_descriptions("spoiled", "boom").await;
    }

    async fn change_descriptions(&self, from: &str, to: &str) {
        let change = format!(
            "ALTER TABLE transactions DISABLE TRIGGER transactions_append_only;
             UPDATE transactions SET description = '{to}' WHERE description = '{from}';
             ALTER TABLE transactions ENABLE TRIGGER transactions_append_only"
        );
        self.client().await.batch_execute(&change).await.expect("changed");
    }

    /// Returns the value of a query as text: `database.value("SELECT count(*) FROM outbox").await`.
    pub async fn value(&self, sql: &str) -> String {
        self.try_value(sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"))
    }

    /// Returns the value of a query, or the error.
    pub async fn try_value(&self, sql: &str) -> Result<String, String> {
        let connected = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await;
        let (client, connection) = connected.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let rows = client.simple_query(sql).await.map_err(|error| error.to_string())?;
        let value = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
            _ => None,
        });
        value.ok_or_else(|| "no row".to_owned())
    }
}

/// Returns a context for tests without a database.
pub fn context(config: Config) -> Context {
    Context {
        config: Arc::new(config),
        stop: Stop::new(),
        health: Health::default(),
        clock: DatabaseClock::default(),
        outages: Outages::default(),
        metrics: metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle(),
        exports_traces: false,
        instance: format!("test-{}", uuid::Uuid::new_v4().simple()).into(),
    }
}

fn config(url: &str, overrides: &[(&str, &str)]) -> Config {
    let base = [
        ("database.url", url),
        // The servers of the tests run without fsync.
        ("database.accept_data_loss", "true"),
        ("admin.listen", "off"),
        ("serve.listen", "127.0.0.1:0"),
    ];
    let all = base.iter().chain(overrides).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    config::load(None, std::iter::empty(), &all.collect()).expect("valid configuration")
}

fn url(database: &str) -> String {
    server().url(database).expose_secret().to_owned()
}

async fn administrator() -> tokio_postgres::Client {
    client(&url("postgres")).await
}

/// Opens a driver connection for plain SQL. It belongs to the runtime of the test.
pub async fn client(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("connection");
    tokio::spawn(connection);
    client
}

/// Returns the shared server. The first test that needs it starts it; the others wait.
fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| {
        // The server needs its own runtime, because the runtime of the first test ends with that test.
        let started = std::thread::spawn(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(start())
        });
        started.join().expect("PostgreSQL for the tests")
    })
}

async fn start() -> Cluster {
    let directory = tempfile::Builder::new().prefix("ledger-test-").tempdir().expect("directory").keep();
    let options = ClusterOptions {
        directory,
        ephemeral: true,
        binaries: None,
        connections_max: 400,
        // Tests kill processes, not machines, so the data survives without flushes, which would cost minutes.
        durable: false,
    };
    let cluster = Cluster::start(&options).await.expect("a private PostgreSQL");
    let admin = client(cluster.url("postgres").expose_secret()).await;
    admin.batch_execute(&format!("CREATE DATABASE {TEMPLATE}")).await.expect("database");
    migrated(cluster.url(TEMPLATE).expose_secret()).await;
    // PostgreSQL cannot copy a template that has connections.
    admin
        .batch_execute(&format!("ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false"))
        .await
        .expect("altered");
    cluster
}

/// Migrates an empty database.
pub async fn migrated(url: &str) {
    let connection = repository::connect(&config(url, &[]).database, "test").await.expect("connection");
    repository::migrations::migrate(connection).await.expect("migrated");
}

#[tokio::test]
async fn every_test_has_a_migrated_database_of_its_own() {
    let (one, other) = tokio::join!(TestDatabase::new(), TestDatabase::new());
    repository::migrations::check_schema(&mut *one.pooled().await).await.expect("migrated");
    one.client().await.batch_execute("INSERT INTO accounts VALUES ('a', 'EUR')").await.expect("inserted");
    assert_eq!(one.value("SELECT count(*) FROM accounts").await, "1");
    assert_eq!(other.value("SELECT count(*) FROM accounts").await, "0");
}

#[tokio::test]
async fn the_server_ends_with_the_test_process() {
    // Runs one test in a child process, and checks that its server and its directory are gone afterwards.
    let parent = tempfile::tempdir().expect("directory");
    std::fs::set_permissions(parent.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .expect("mode");
    let test = "support::postgres::every_test_has_a_migrated_database_of_its_own";
    let run = Command::new(std::env::current_exe().expect("path"))
        .args(["--exact", test])
        .env("TMPDIR", parent.path())
        .output()
        .expect("run");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    let is_empty = || std::fs::read_dir(parent.path()).expect("readable").next().is_none();
    super::eventually("the server's directory is removed", async || is_empty()).await;
}
