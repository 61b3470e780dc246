//! A private PostgreSQL cluster: created, started and stopped by this process, on a free port of the loopback interface,
//! with a password of its own.
//!
//! Guarantees: the server ends with this process, however this process ends (see [`super::watchdog`]); the directory is
//! used by one process at a time; commits are durable unless a test switches that off. Deliberately absent: upgrades
//! between major versions, replicas, access from other machines.

mod directory;
mod initdb;
mod orphan;
mod server;
mod signals;

use std::{fs::File, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};

use self::{
    directory::Directory,
    server::{Server, ServerSettings},
};
use super::{binaries, os_user::OsUser, watchdog::Watchdog};

const SUPERUSER: &str = "ledger";

/// How to make and run a cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The directory of all its files. Created if it is missing; otherwise it must be empty or hold a cluster that this
    /// module created.
    pub directory: PathBuf,
    /// Whether to remove `directory` when the cluster stops.
    pub ephemeral: bool,
    /// The directory of PostgreSQL's programs. With None, installed programs are used, or portable ones downloaded.
    pub binaries: Option<PathBuf>,
    /// The maximum number of connections.
    pub connections_max: u32,
    /// Switches `fsync` and `full_page_writes` on. Without them a crash of the machine may lose everything; a crash of
    /// the server or a `kill -9` still loses nothing.
    pub durable: bool,
}

/// A running cluster. [`Cluster::stop`] stops it and waits for the end. If the value is only dropped, the watchdog
/// stops the cluster.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    password: SecretString,
    directory: Directory,
    ephemeral: bool,
    watchdog: Watchdog,
    /// Reserves the directory for this process.
    _lock: File,
}

impl Cluster {
    /// Starts a cluster and waits until it accepts connections.
    pub async fn start(options: &ClusterOptions) -> anyhow::Result<Self> {
        Self::start_as(options, None, &[]).await
    }

    /// Starts a cluster on the given port and with further settings (`name=value`), which override the usual ones. For
    /// tests of restarts, TLS and failover.
    pub async fn start_as(
        options: &ClusterOptions,
        port: Option<u16>,
        settings: &[String],
    ) -> anyhow::Result<Self> {
        let user = OsUser::choose()?;
        let (directory, lock) = directory::claim(&options.directory, &user).await?;
        // The watchdog cleans up after every later error, and after a drop.
        let mut watchdog = Watchdog::start(&directory.data(), options.ephemeral.then_some(directory.path()))?;
        orphan::stop(&directory.data()).await?;
        let major = directory.data_major();
        let binaries = binaries::find_or_download(options.binaries.as_deref(), major, &user).await?;
        user.check_access(&binaries.directory.join("postgres"), "the programs in")?;
        let password = match major {
            Some(_) => directory.read_password()?,
            None => initdb::run(&directory, &binaries, &user, SUPERUSER).await?,
        };
        let settings = ServerSettings {
            port,
            connections_max: options.connections_max,
            durable: options.durable,
            overrides: settings,
        };
        let server = Server::start(&directory, &binaries, &user, &settings, &mut watchdog).await?;
        Ok(Self { server, password, directory, ephemeral: options.ephemeral, watchdog, _lock: lock })
    }

    /// Returns the URL of a database of this cluster, with the password.
    pub fn url(&self, database: &str) -> SecretString {
        let (password, port) = (self.password.expose_secret(), self.port());
        format!("postgres://{SUPERUSER}:{password}@127.0.0.1:{port}/{database}").into()
    }

    /// The server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// The server's process id, for tests that kill the server.
    pub fn process_id(&self) -> u32 {
        self.server.process_id
    }

    /// Waits until the server ends by itself, and returns an error with the last lines of its log.
    pub async fn ended(&mut self) -> anyhow::Error {
        let status = self.server.ended().await;
        anyhow::anyhow!("PostgreSQL ended ({status}): {}", self.directory.last_log_lines())
    }

    /// Stops the cluster within a few seconds. Open database transactions are rolled back; no commit is lost.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.server.stop().await?;
        if self.ephemeral {
            self.directory.remove()?;
        }
        tokio::task::spawn_blocking(move || self.watchdog.finish()).await?
    }
}
