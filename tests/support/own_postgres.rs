//! A PostgreSQL for one test, which can kill and restart it. Clients connect through a proxy, so they keep one address
//! although the server gets another port at each start.

use std::path::PathBuf;

use ledger::{
    dev::cluster::{Cluster, ClusterOptions},
    repository::{self, databases, migrations},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use secrecy::ExposeSecret;

use super::{german::GermanPostgres, postgres::TestDatabase, proxy::Proxy};

const DATABASE: &str = "ledger";
/// The child processes of a killed server need a moment to exit.
const START_ATTEMPTS_MAX: usize = 20;

/// The server. When it is dropped, it ends and its files are removed.
pub struct OwnPostgres {
    /// The proxy in front of the server.
    pub proxy: Proxy,
    directory: PathBuf,
    /// The programs of a server that knows a German locale.
    german: Option<GermanPostgres>,
    cluster: Option<Cluster>,
}

impl OwnPostgres {
    /// Starts a server with a migrated database.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Starts a server with a migrated database. `lc_messages` can be German, if the machine has what that needs.
    pub async fn start_with_german_locale() -> Self {
        Self::start_with(GermanPostgres::make()).await
    }

    async fn start_with(german: Option<GermanPostgres>) -> Self {
        let directory = tempfile::Builder::new().prefix("ledger-test-").tempdir().expect("directory").keep();
        let cluster = cluster(&directory, german.as_ref()).await.expect("a private PostgreSQL");
        let administrator = TestDatabase::at(cluster.url("postgres").expose_secret());
        databases::create_if_missing(&mut administrator.connection().await, DATABASE).await.expect("created");
        let database = TestDatabase::at(cluster.url(DATABASE).expose_secret());
        let connection = repository::connect(&database.config.database, "test").await.expect("connection");
        migrations::migrate(connection).await.expect("migrated");
        let proxy = Proxy::start(([127, 0, 0, 1], cluster.port()).into()).await;
        Self { proxy, directory, german, cluster: Some(cluster) }
    }

    /// Returns the URL of the database through the proxy. It never changes.
    pub fn url(&self) -> String {
        let cluster = self.cluster.as_ref().expect("running");
        let port = format!(":{}/", cluster.port());
        cluster.url(DATABASE).expose_secret().replace(&port, &format!(":{}/", self.proxy.address.port()))
    }

    /// Returns the database without the proxy. Valid until the next restart.
    pub fn direct(&self) -> TestDatabase {
        TestDatabase::at(self.cluster.as_ref().expect("running").url(DATABASE).expose_secret())
    }

    /// Returns whether the server runs.
    pub fn is_up(&self) -> bool {
        self.cluster.is_some()
    }

    /// Kills the server.
    pub async fn crash(&mut self) {
        let mut cluster = self.cluster.take().expect("running");
        let pid = i32::try_from(cluster.process_id()).expect("a process id");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
        let _ = cluster.ended().await;
    }

    /// Stops the server cleanly.
    pub async fn down(&mut self) {
        self.cluster.take().expect("running").stop().await.expect("stopped");
    }

    /// Starts the server again with its data.
    pub async fn up(&mut self) {
        for attempt in 1.. {
            match cluster(&self.directory, self.german.as_ref()).await {
                Ok(cluster) => {
                    self.proxy.point_at(([127, 0, 0, 1], cluster.port()).into());
                    self.cluster = Some(cluster);
                    return;
                }
                Err(error) => assert!(attempt < START_ATTEMPTS_MAX, "{error:#}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
}

async fn cluster(directory: &std::path::Path, german: Option<&GermanPostgres>) -> anyhow::Result<Cluster> {
    let options = ClusterOptions {
        directory: directory.to_owned(),
        // The server restarts on the same files. `Drop` removes them.
        ephemeral: false,
        binaries: german.map(GermanPostgres::binaries),
        connections_max: 100,
        durable: false,
    };
    Cluster::start(&options).await
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        // The watchdog stops the server when the cluster is dropped.
        drop(self.cluster.take());
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
