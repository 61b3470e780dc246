//! A private PostgreSQL: made, started and stopped by this process, on a free port of the loopback interface, with
//! a password of its own. It ends with this process, however that ends (see [`super::watchdog`]).
//!
//! Its directory belongs to one process at a time. It is as durable as any other PostgreSQL unless a test says
//! otherwise. Deliberately absent: upgrades between major versions, replicas, access from other machines.

use std::{
    fs::{self, File},
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    process::Child,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{
    binaries::{self, Binaries},
    os_user::OsUser,
    watchdog::Watchdog,
};

const INITDB_TIMEOUT: Duration = Duration::from_secs(60);
/// Includes crash recovery after a `kill -9`.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const START_ATTEMPTS_MAX: u32 = 3;
/// A process that was killed a moment ago holds its files until the kernel is through with it.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(2);
const FAST_STOP_TIMEOUT: Duration = Duration::from_millis(2500);
const IMMEDIATE_STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// An orphan may be writing its last checkpoint.
const ORPHAN_STOP_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const SUPERUSER: &str = "ledger";

/// What kind of cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Everything of it lies in here. Made if missing; must be empty or made by us.
    pub directory: PathBuf,
    /// Remove `directory` in the end.
    pub ephemeral: bool,
    /// The programs to use; None looks for installed ones and fetches portable ones otherwise.
    pub binaries: Option<PathBuf>,
    /// Connections that the server admits.
    pub connections_max: u32,
    /// `fsync` and `full_page_writes`. Without them a crash of the machine may lose everything; a crash of the
    /// server or a `kill -9` loses nothing all the same.
    pub durable: bool,
}

/// A running cluster. Dropping it leaves the stop to the watchdog; [`Cluster::stop`] waits for it.
#[derive(Debug)]
pub struct Cluster {
    server: Child,
    process_id: u32,
    port: u16,
    password: SecretString,
    home: Home,
    ephemeral: bool,
    watchdog: Watchdog,
    /// Held while we use the directory.
    _lock: File,
}

/// The files in a cluster's directory.
#[derive(Debug, Clone)]
struct Home(PathBuf);

impl Home {
    fn data(&self) -> PathBuf {
        self.0.join("postgresql")
    }

    fn password(&self) -> PathBuf {
        self.0.join("password")
    }

    fn log(&self) -> PathBuf {
        self.0.join("postgresql.log")
    }

    fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// The major version that made the data; None where there is none yet.
    fn data_major(&self) -> Option<u32> {
        fs::read_to_string(self.data().join("PG_VERSION")).ok()?.trim().parse().ok()
    }
}

impl Cluster {
    /// Starts a cluster and returns once it takes connections.
    pub async fn start(options: &ClusterOptions) -> anyhow::Result<Self> {
        Self::start_as(options, None, &[]).await
    }

    /// Starts a cluster on a port of the caller's choice and with settings beside ours (`name=value`; they win). For
    /// tests of restarts, TLS and failover: a server that comes back where it was, and one that follows another.
    pub async fn start_as(
        options: &ClusterOptions,
        port: Option<u16>,
        settings: &[String],
    ) -> anyhow::Result<Self> {
        let user = OsUser::choose()?;
        let (home, lock) = claim(&options.directory, &user).await?;
        // From here on, whatever fails or is given up half way is cleaned up by it.
        let mut watchdog = Watchdog::start(&home.data(), options.ephemeral.then_some(home.0.as_path()))?;
        stop_orphan(&home.data()).await?;
        let binaries = binaries::find_or_fetch(options.binaries.as_deref(), home.data_major(), &user).await?;
        user.check_reach(&binaries.directory.join("postgres"), "the programs in")?;
        let password = match home.data_major() {
            Some(_) => kept_password(&home)?,
            None => make(&home, &binaries, &user).await?,
        };
        let (server, process_id, port) =
            start_server(&home, &binaries, &user, options, (port, settings), &mut watchdog).await?;
        let ephemeral = options.ephemeral;
        Ok(Self { server, process_id, port, password, home, ephemeral, watchdog, _lock: lock })
    }

    /// Where a database of it is, with the password.
    pub fn url(&self, database: &str) -> SecretString {
        let (password, port) = (self.password.expose_secret(), self.port);
        format!("postgres://{SUPERUSER}:{password}@127.0.0.1:{port}/{database}").into()
    }

    /// The server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process, for tests that kill it.
    pub fn process_id(&self) -> u32 {
        self.process_id
    }

    /// Returns when the server ends without having been asked to, with what its log says.
    pub async fn ended(&mut self) -> anyhow::Error {
        let status = self.server.wait().await.map_or_else(|error| error.to_string(), |s| s.to_string());
        anyhow::anyhow!("PostgreSQL ended ({status}): {}", last_lines(&self.home.log()))
    }

    /// Stops it: the fast way (open transactions are rolled back), and the immediate way if that takes too long,
    /// which loses nothing that was committed. Takes at most a few seconds.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for (signal, limit) in [
            (Signal::SIGINT, FAST_STOP_TIMEOUT),
            (Signal::SIGQUIT, IMMEDIATE_STOP_TIMEOUT),
            (Signal::SIGKILL, IMMEDIATE_STOP_TIMEOUT),
        ] {
            // While it is our unwaited child its number belongs to nobody else.
            if self.server.id().is_some() {
                send(self.process_id, signal)?;
            }
            if timeout(limit, self.server.wait()).await.is_ok() {
                break;
            }
            tracing::debug!(%signal, "PostgreSQL did not stop in time");
        }
        if self.ephemeral {
            fs::remove_dir_all(&self.home.0)
                .with_context(|| format!("cannot remove {}", self.home.0.display()))?;
        }
        tokio::task::spawn_blocking(move || self.watchdog.finish()).await?
    }
}

fn send(process_id: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(process_id).context("a process id")?);
    match kill(pid, signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot send {signal} to PostgreSQL ({pid})")),
    }
}

/// Makes the directory ours: exists, empty or made by us, reachable by the server's user, and locked.
async fn claim(directory: &Path, user: &OsUser) -> anyhow::Result<(Home, File)> {
    let shown = directory.display();
    user.check_reach(directory, "the data in")?;
    let known = directory.join("lock").exists();
    match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(empty) if !empty && !known => {
            bail!("{shown} is neither empty nor made by `ledger dev`; choose another data directory")
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(directory).with_context(|| format!("cannot create {shown}"))?;
        }
        Err(error) => return Err(error).with_context(|| format!("cannot use {shown}")),
    }
    let home = Home(directory.canonicalize().with_context(|| format!("cannot use {shown}"))?);
    let lock = File::create(home.lock()).with_context(|| format!("cannot write into {shown}"))?;
    let deadline = Instant::now() + CLAIM_TIMEOUT;
    while lock.try_lock().is_err() {
        if Instant::now() >= deadline {
            bail!("{shown} is in use by another `ledger`; stop that one or choose another data directory");
        }
        sleep(POLL_INTERVAL).await;
    }
    user.give(&home.0)?;
    Ok((home, lock))
}

/// After a `kill -9` of ours the server may still run (its watchdog needs a moment) or its pid file may be stale.
async fn stop_orphan(data: &Path) -> anyhow::Result<()> {
    let Some(process_id) = orphan(data) else { return Ok(()) };
    tracing::info!(process_id, "stopping the PostgreSQL that an earlier run left behind");
    for (signal, limit) in [(Signal::SIGINT, ORPHAN_STOP_TIMEOUT), (Signal::SIGQUIT, ORPHAN_STOP_TIMEOUT)] {
        send(process_id, signal)?;
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if orphan(data).is_none() {
                return Ok(());
            }
            sleep(POLL_INTERVAL).await;
        }
    }
    bail!("an earlier PostgreSQL (process {process_id}) on {} does not stop", data.display())
}

/// The process that the pid file names, if it is still a server on this very directory.
fn orphan(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let process_id: u32 = text.lines().next()?.trim().parse().ok()?;
    let arguments = fs::read(format!("/proc/{process_id}/cmdline")).or_else(|_| {
        let ps = Command::new("ps").args(["-o", "args=", "-p", &process_id.to_string()]).output();
        ps.map(|output| output.stdout)
    });
    String::from_utf8_lossy(&arguments.ok()?).contains(data.to_str()?).then_some(process_id)
}

fn kept_password(home: &Home) -> anyhow::Result<SecretString> {
    let path = home.password();
    let text = fs::read_to_string(&path).with_context(|| {
        format!("cannot read {}; remove {} to start anew", path.display(), home.0.display())
    })?;
    Ok(text.trim_end().to_owned().into())
}

/// Makes the data directory. A run that died half way left no PG_VERSION or an incomplete one behind: initdb
/// refuses that, so it is made beside and renamed.
async fn make(home: &Home, binaries: &Binaries, user: &OsUser) -> anyhow::Result<SecretString> {
    let password = Uuid::new_v4().simple().to_string();
    write_private(&home.password(), &password)?;
    user.give(&home.password())?;
    let building = home.0.join("postgresql.building");
    if building.exists() {
        fs::remove_dir_all(&building).with_context(|| format!("cannot remove {}", building.display()))?;
    }
    let mut command = Command::new(binaries.directory.join("initdb"));
    command
        // The password crosses only the loopback interface; SCRAM would cost a client of a debug build 0.1 s for
        // each connection and keep nothing more secret.
        .args(["--encoding=UTF8", "--no-locale", "--auth=password", "--no-instructions"])
        .args([format!("--username={SUPERUSER}"), format!("--pwfile={}", home.password().display())])
        // The new files need not survive a crash of the machine before the first start.
        .args(["--no-sync", "-D"])
        .arg(&building)
        .current_dir(&home.0)
        .process_group(0)
        .stdin(Stdio::null());
    user.apply(&mut command);
    let output = tokio::process::Command::from(command).kill_on_drop(true).output();
    let output = timeout(INITDB_TIMEOUT, output)
        .await
        .with_context(|| format!("initdb took longer than {INITDB_TIMEOUT:?}"))?
        .context("cannot run initdb")?;
    if !output.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::rename(&building, home.data()).context("cannot name the new data directory")?;
    Ok(password.into())
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Starts the server on a free port. Another process may take the port in between; then another one is tried.
async fn start_server(
    home: &Home,
    binaries: &Binaries,
    user: &OsUser,
    options: &ClusterOptions,
    (wanted_port, more): (Option<u16>, &[String]),
    watchdog: &mut Watchdog,
) -> anyhow::Result<(Child, u32, u16)> {
    let data = home.data();
    let mut attempt = 1;
    loop {
        let port = wanted_port.map_or_else(free_port, Ok)?;
        let mut command = server_command(home, binaries, options, port, more)?;
        user.apply(&mut command);
        let mut server = tokio::process::Command::from(command).spawn().context("cannot start PostgreSQL")?;
        let process_id = server.id().context("PostgreSQL ended at once")?;
        watchdog.watch(process_id)?;
        let problem = tokio::select! {
            () = ready(&data, process_id) => return Ok((server, process_id, port)),
            _ = server.wait() => last_lines(&home.log()),
            () = sleep(START_TIMEOUT) => {
                send(process_id, Signal::SIGQUIT)?;
                bail!("PostgreSQL was not ready within {START_TIMEOUT:?}: {}", last_lines(&home.log()));
            }
        };
        if attempt == START_ATTEMPTS_MAX || !problem.contains("Address already in use") {
            bail!("PostgreSQL does not start: {problem}");
        }
        attempt += 1;
    }
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr().context("no free port on 127.0.0.1")?.port())
}

fn server_command(
    home: &Home,
    binaries: &Binaries,
    options: &ClusterOptions,
    port: u16,
    more: &[String],
) -> anyhow::Result<Command> {
    let log = File::create(home.log()).with_context(|| format!("cannot write {}", home.log().display()))?;
    let durable = if options.durable { "on" } else { "off" };
    let settings = [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        "unix_socket_directories=".to_owned(),
        format!("max_connections={}", options.connections_max),
        "shared_buffers=128MB".to_owned(),
        // Inside the data directory, so that even a kill -9 leaves nothing elsewhere.
        "dynamic_shared_memory_type=mmap".to_owned(),
        format!("fsync={durable}"),
        format!("full_page_writes={durable}"),
        "synchronous_commit=on".to_owned(),
        "wal_compression=on".to_owned(),
        "wal_level=minimal".to_owned(),
        "max_wal_senders=0".to_owned(),
        "min_wal_size=128MB".to_owned(),
        "max_wal_size=1GB".to_owned(),
        // The roles log their own errors; the server's log tells of the server.
        "log_min_messages=log".to_owned(),
        "log_checkpoints=off".to_owned(),
        "timezone=UTC".to_owned(),
        "jit=off".to_owned(),
    ];
    let mut command = Command::new(binaries.directory.join("postgres"));
    command.arg("-D").arg(home.data());
    for setting in settings.iter().chain(more) {
        command.args(["-c", setting]);
    }
    command
        .current_dir(&home.0)
        // A Ctrl-C in the terminal is for us: the roles stop first, then the server.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Ok(command)
}

/// PostgreSQL writes its state into the eighth line of its pid file; `pg_ctl` waits for the same. A standby that
/// takes readers says `standby`.
async fn ready(data: &Path, process_id: u32) {
    let path = data.join("postmaster.pid");
    loop {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut lines = text.lines();
        let ours = lines.next() == Some(process_id.to_string().as_str());
        if ours && lines.nth(6).is_some_and(|state| matches!(state.trim(), "ready" | "standby")) {
            return;
        }
        sleep(POLL_INTERVAL).await;
    }
}

fn last_lines(log: &Path) -> String {
    const LINES: usize = 5;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    if last.is_empty() { format!("{} is empty", log.display()) } else { last.join("; ") }
}
