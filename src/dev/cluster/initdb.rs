//! Creates the data directory of a new cluster.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use secrecy::SecretString;
use tokio::time::timeout;
use uuid::Uuid;

use super::directory::Directory;
use crate::dev::{binaries::Binaries, os_user::OsUser};

const INITDB_TIMEOUT: Duration = Duration::from_secs(60);

/// Creates the data directory, and returns the superuser's new password.
///
/// The directory is created under another name and then renamed, because an interrupted `initdb` leaves files that a
/// second one refuses.
pub(super) async fn run(
    directory: &Directory,
    binaries: &Binaries,
    user: &OsUser,
    superuser: &str,
) -> anyhow::Result<SecretString> {
    let password = Uuid::new_v4().simple().to_string();
    directory.write_password(&password)?;
    user.give(&directory.password_file())?;
    let unfinished = directory.unfinished_data();
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("cannot remove {}", unfinished.display()))?;
    }
    let mut command = command(directory, binaries, superuser);
    user.apply(&mut command);
    let output = tokio::process::Command::from(command).kill_on_drop(true).output();
    let output = timeout(INITDB_TIMEOUT, output)
        .await
        .with_context(|| format!("initdb took longer than {INITDB_TIMEOUT:?}"))?
        .context("cannot run initdb")?;
    if !output.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::rename(&unfinished, directory.data()).context("cannot rename the new data directory")?;
    Ok(password.into())
}

fn command(directory: &Directory, binaries: &Binaries, superuser: &str) -> Command {
    let mut command = Command::new(binaries.directory.join("initdb"));
    command
        // Passwords cross only the loopback interface. SCRAM would cost a debug build 0.1 s for each connection and
        // would protect nothing more.
        .args(["--encoding=UTF8", "--no-locale", "--auth=password", "--no-instructions"])
        .args([
            format!("--username={superuser}"),
            format!("--pwfile={}", directory.password_file().display()),
        ])
        // The new files need not survive a crash of the machine before the first start.
        .args(["--no-sync", "-D"])
        .arg(directory.unfinished_data())
        .current_dir(directory.path())
        .process_group(0)
        .stdin(Stdio::null());
    command
}
