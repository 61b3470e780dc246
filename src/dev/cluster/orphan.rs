//! Stops a server that an earlier process left behind. After a `kill -9` the watchdog needs a moment to stop the server,
//! and the pid file may be out of date.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::bail;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::signals;

/// The time limit for each signal. The server may be writing its last checkpoint.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Stops the server that still runs on the data directory, if there is one.
pub(super) async fn stop(data: &Path) -> anyhow::Result<()> {
    let Some(process_id) = find(data) else { return Ok(()) };
    tracing::info!(process_id, "stopping the PostgreSQL server that an earlier run left behind");
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        signals::send(process_id, signal)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if find(data).is_none() {
                return Ok(());
            }
            sleep(POLL_INTERVAL).await;
        }
    }
    bail!("an earlier PostgreSQL (process {process_id}) on {} does not stop", data.display())
}

/// Returns the process that the pid file names, if it is a server on this data directory.
fn find(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let process_id: u32 = text.lines().next()?.trim().parse().ok()?;
    let arguments = fs::read(format!("/proc/{process_id}/cmdline")).or_else(|_| {
        let ps = Command::new("ps").args(["-o", "args=", "-p", &process_id.to_string()]).output();
        ps.map(|output| output.stdout)
    });
    String::from_utf8_lossy(&arguments.ok()?).contains(data.to_str()?).then_some(process_id)
}
