//! The server process of a cluster.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use tokio::{
    process::Child,
    time::{sleep, timeout},
};

use super::{directory::Directory, signals};
use crate::dev::{binaries::Binaries, os_user::OsUser, watchdog::Watchdog};

/// Includes crash recovery after a `kill -9`.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const START_ATTEMPTS_MAX: u32 = 3;
const READY_POLL_INTERVAL: Duration = Duration::from_millis(20);
const FAST_STOP_TIMEOUT: Duration = Duration::from_millis(2500);
const IMMEDIATE_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How to run a server.
pub(super) struct ServerSettings<'a> {
    /// The port to listen on. None chooses a free port.
    pub(super) port: Option<u16>,
    pub(super) connections_max: u32,
    /// See [`super::ClusterOptions::durable`].
    pub(super) durable: bool,
    /// Settings (`name=value`) that override the usual ones.
    pub(super) overrides: &'a [String],
}

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pub(super) process_id: u32,
    pub(super) port: u16,
}

impl Server {
    /// Starts the server and waits until it accepts connections. If another process takes the chosen port first,
    /// another port is tried.
    pub(super) async fn start(
        directory: &Directory,
        binaries: &Binaries,
        user: &OsUser,
        settings: &ServerSettings<'_>,
        watchdog: &mut Watchdog,
    ) -> anyhow::Result<Self> {
        let data = directory.data();
        let mut attempt = 1;
        loop {
            let port = settings.port.map_or_else(free_port, Ok)?;
            let mut command = command(directory, binaries, settings, port)?;
            user.apply(&mut command);
            let mut child =
                tokio::process::Command::from(command).spawn().context("cannot start PostgreSQL")?;
            let process_id = child.id().context("PostgreSQL ended at once")?;
            watchdog.watch(process_id)?;
            let problem = tokio::select! {
                () = ready(&data, process_id) => return Ok(Self { child, process_id, port }),
                _ = child.wait() => directory.last_log_lines(),
                () = sleep(START_TIMEOUT) => {
                    signals::send(process_id, Signal::SIGQUIT)?;
                    bail!("PostgreSQL was not ready within {START_TIMEOUT:?}: {}", directory.last_log_lines());
                }
            };
            if attempt == START_ATTEMPTS_MAX || !problem.contains("Address already in use") {
                bail!("PostgreSQL does not start: {problem}");
            }
            attempt += 1;
        }
    }

    /// Waits until the server ends by itself, and returns its exit status.
    pub(super) async fn ended(&mut self) -> String {
        self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string())
    }

    /// Stops the server: by a fast shutdown, then by an immediate one if that takes too long, and at last by SIGKILL. None
    /// of them loses a commit.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        for (signal, limit) in [
            (Signal::SIGINT, FAST_STOP_TIMEOUT),
            (Signal::SIGQUIT, IMMEDIATE_STOP_TIMEOUT),
            (Signal::SIGKILL, IMMEDIATE_STOP_TIMEOUT),
        ] {
            // No other process can get this process id until the wait for the child has returned.
            if self.child.id().is_some() {
                signals::send(self.process_id, signal)?;
            }
            if timeout(limit, self.child.wait()).await.is_ok() {
                break;
            }
            tracing::debug!(%signal, "PostgreSQL did not stop in time");
        }
        Ok(())
    }
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr().context("no free port on 127.0.0.1")?.port())
}

fn command(
    directory: &Directory,
    binaries: &Binaries,
    settings: &ServerSettings<'_>,
    port: u16,
) -> anyhow::Result<Command> {
    let path = directory.log();
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let durable = if settings.durable { "on" } else { "off" };
    let usual = [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        "unix_socket_directories=".to_owned(),
        format!("max_connections={}", settings.connections_max),
        "shared_buffers=128MB".to_owned(),
        // Shared memory lies in the data directory, so that a kill -9 leaves nothing elsewhere.
        "dynamic_shared_memory_type=mmap".to_owned(),
        format!("fsync={durable}"),
        format!("full_page_writes={durable}"),
        "synchronous_commit=on".to_owned(),
        "wal_compression=on".to_owned(),
        "wal_level=minimal".to_owned(),
        "max_wal_senders=0".to_owned(),
        "min_wal_size=128MB".to_owned(),
        "max_wal_size=1GB".to_owned(),
        // The roles log their own SQL errors, so the server logs only its own state.
        "log_min_messages=log".to_owned(),
        "log_checkpoints=off".to_owned(),
        "timezone=UTC".to_owned(),
        "jit=off".to_owned(),
    ];
    let mut command = Command::new(binaries.directory.join("postgres"));
    command.arg("-D").arg(directory.data());
    for setting in usual.iter().chain(settings.overrides) {
        command.args(["-c", setting]);
    }
    command
        .current_dir(directory.path())
        // In a process group of its own, the server does not get the terminal's Ctrl-C: the roles must stop first.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Ok(command)
}

/// Waits until the server accepts connections. Like `pg_ctl`, it reads the state in the eighth line of the pid file. A
/// standby that accepts reads has the state `standby`.
async fn ready(data: &Path, process_id: u32) {
    let path = data.join("postmaster.pid");
    loop {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut lines = text.lines();
        let is_ours = lines.next() == Some(process_id.to_string().as_str());
        if is_ours && lines.nth(6).is_some_and(|state| matches!(state.trim(), "ready" | "standby")) {
            return;
        }
        sleep(READY_POLL_INTERVAL).await;
    }
}
