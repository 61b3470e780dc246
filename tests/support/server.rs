//! A PostgreSQL server that belongs to one test, for faults and settings that must not affect the shared server: restarts,
//! a standby, TLS.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
};

use ledger::dev::cluster::{Cluster, ClusterOptions};
use secrecy::ExposeSecret;

use super::{
    german::{self, GermanPostgres},
    postgres::{client, migrated},
};

const DATABASE: &str = "ledger";

/// A server with a migrated database. It stops with the test process, and its directory is removed.
pub struct Server {
    directory: PathBuf,
    port: u16,
    settings: Vec<String>,
    /// The programs of a server with German messages.
    german: Option<GermanPostgres>,
    cluster: Option<Cluster>,
}

impl Server {
    /// Starts a server with additional settings.
    pub async fn start(settings: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("ledger-test-").tempdir().expect("directory").keep();
        Self::at(directory, settings).await.migrated().await
    }

    /// Starts a server with German messages. Returns None if the machine has no German locale; see [`GermanPostgres`].
    pub async fn german(settings: &[&str]) -> Option<Self> {
        let german = GermanPostgres::make()?;
        let directory = tempfile::Builder::new().prefix("ledger-test-").tempdir().expect("directory").keep();
        let mut server = Self::at(directory, settings).await;
        server.set(&[&format!("lc_messages={}", german::LOCALE)]);
        server.german = Some(german);
        Some(server.migrated().await)
    }

    async fn migrated(mut self) -> Self {
        let server = &mut self;
        server.up().await;
        let admin = client(&server.url_of("postgres")).await;
        admin.batch_execute(&format!("CREATE DATABASE {DATABASE}")).await.expect("database");
        migrated(&server.url()).await;
        self
    }

    async fn at(directory: PathBuf, settings: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { directory, port, settings, german: None, cluster: None }
    }

    /// Adds settings for the next start.
    pub fn set(&mut self, settings: &[&str]) {
        self.settings.extend(settings.iter().map(|setting| (*setting).to_owned()));
    }

    /// Starts the server on its port.
    pub async fn up(&mut self) {
        let options = ClusterOptions {
            directory: self.directory.clone(),
            // The directory must survive a restart; `Drop` removes it.
            ephemeral: false,
            binaries: self.german.as_ref().map(GermanPostgres::binaries),
            connections_max: 50,
            durable: false,
        };
        let cluster = Cluster::start_as(&options, Some(self.port), &self.settings).await;
        self.cluster = Some(cluster.expect("a private PostgreSQL"));
    }

    /// Stops the server. Open transactions are rolled back.
    pub async fn down(&mut self) {
        self.cluster.take().expect("the server runs").stop().await.expect("stopped");
    }

    /// Starts a standby of this server. The server is stopped while its files are copied, because not every installation
    /// of PostgreSQL has `pg_basebackup`.
    pub async fn standby(&mut self) -> Self {
        self.down().await;
        let directory = tempfile::Builder::new().prefix("ledger-test-").tempdir().expect("directory").keep();
        // `-a` keeps the owner of the files, which can be another user.
        let mut copy = std::process::Command::new("cp");
        let copied = copy.arg("-a").arg(self.directory.join(".")).arg(&directory).status().expect("cp");
        assert!(copied.success());
        let signal = directory.join("postgresql/standby.signal");
        std::fs::write(&signal, "").expect("written");
        self.up().await;
        let primary = format!("primary_conninfo={}", self.url_of("postgres"));
        let settings: Vec<&str> =
            self.settings.iter().map(String::as_str).chain([primary.as_str()]).collect();
        let mut standby = Self::at(directory, &settings).await;
        standby.up().await;
        standby
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the directory of the data and of related files such as certificates.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the URL of the migrated database, with user and password.
    pub fn url(&self) -> String {
        self.url_of(DATABASE)
    }

    /// Returns the URL of the database at other addresses (`host:port,host:port`).
    pub fn url_at(&self, addresses: &str) -> String {
        self.url().replace(&format!("127.0.0.1:{}", self.port), addresses)
    }

    fn url_of(&self, database: &str) -> String {
        self.cluster.as_ref().expect("the server runs").url(database).expose_secret().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The watchdog stops the server after the cluster is dropped. The files are removed even if the server still runs.
        drop(self.cluster.take());
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
