//! Signals to PostgreSQL's main process.

use anyhow::Context as _;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Sends a signal. A process that has already ended is no error.
pub(super) fn send(process_id: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(process_id).context("a process id")?);
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot send {signal} to PostgreSQL ({pid})")),
    }
}
