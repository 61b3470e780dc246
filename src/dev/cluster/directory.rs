//! The directory of a cluster: its files, and the lock that reserves it for one process.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use secrecy::SecretString;
use tokio::time::{Instant, sleep};

use crate::dev::os_user::OsUser;

/// The kernel keeps the files of a killed process open for a moment.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(20);
const LOCK_FILE: &str = "lock";

/// The files in a cluster's directory.
#[derive(Debug, Clone)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// PostgreSQL's data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.0.join("postgresql")
    }

    /// The data directory while it is being created.
    pub(super) fn unfinished_data(&self) -> PathBuf {
        self.0.join("postgresql.building")
    }

    pub(super) fn password_file(&self) -> PathBuf {
        self.0.join("password")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.0.join("postgresql.log")
    }

    /// Returns the major version of the data; None if there is no data yet.
    pub(super) fn data_major(&self) -> Option<u32> {
        fs::read_to_string(self.data().join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    pub(super) fn read_password(&self) -> anyhow::Result<SecretString> {
        let path = self.password_file();
        let text = fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}; remove {} to start with an empty database",
                path.display(),
                self.0.display()
            )
        })?;
        Ok(text.trim_end().to_owned().into())
    }

    /// Writes the password so that only this user can read it.
    pub(super) fn write_password(&self, password: &str) -> anyhow::Result<()> {
        let path = self.password_file();
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(password.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn last_log_lines(&self) -> String {
        const LINES: usize = 5;
        let log = self.log();
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
        if last.is_empty() { format!("{} is empty", log.display()) } else { last.join("; ") }
    }

    pub(super) fn remove(&self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.0).with_context(|| format!("cannot remove {}", self.0.display()))
    }
}

/// Creates the directory if it is missing, locks it, and gives it to the server's user. Refuses a directory that holds
/// other files, is used by another process, or cannot be reached by the server's user.
pub(super) async fn claim(path: &Path, user: &OsUser) -> anyhow::Result<(Directory, File)> {
    let shown = path.display();
    user.check_access(path, "the data in")?;
    let is_ours = path.join(LOCK_FILE).exists();
    match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
        Ok(is_empty) if !is_empty && !is_ours => {
            bail!("{shown} is neither empty nor made by `ledger dev`; choose another data directory")
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(path).with_context(|| format!("cannot create {shown}"))?;
        }
        Err(error) => return Err(error).with_context(|| format!("cannot use {shown}")),
    }
    let directory = Directory(path.canonicalize().with_context(|| format!("cannot use {shown}"))?);
    let lock =
        File::create(directory.0.join(LOCK_FILE)).with_context(|| format!("cannot write into {shown}"))?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    while lock.try_lock().is_err() {
        if Instant::now() >= deadline {
            bail!("{shown} is in use by another `ledger`; stop that one or choose another data directory");
        }
        sleep(LOCK_POLL_INTERVAL).await;
    }
    user.give(&directory.0)?;
    Ok((directory, lock))
}
