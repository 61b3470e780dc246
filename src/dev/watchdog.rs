//! Stops a private PostgreSQL server when this process ends, however it ends: also after `kill -9`, a panic, or the exit
//! of a test runner.
//!
//! A shell that outlives this process reads from a pipe whose other end only this process holds. At the end of the
//! input the shell stops the server and, for an ephemeral cluster, removes its directory.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;

/// Reads process ids, one a line, and at the end of the input stops the last one. The script signals the process only
/// while the data directory's `postmaster.pid` names it, so a later process with the same id is safe.
const SCRIPT: &str = r#"
data=$1 remove=$2 pid=
while read -r line; do pid=$line; done
ours() {
  [ -n "$pid" ] && read -r first 2>/dev/null <"$data/postmaster.pid" && [ "$first" = "$pid" ] && kill -0 "$pid" 2>/dev/null
}
for step in INT:50 QUIT:20 KILL:10; do
  ours || break
  kill -s "${step%:*}" "$pid" 2>/dev/null
  left=${step#*:}
  while ours && [ "$left" -gt 0 ]; do sleep 0.1; left=$((left - 1)); done
done
[ -z "$remove" ] || rm -rf -- "$remove"
"#;

/// The watchdog of one data directory. It acts when this value is dropped.
#[derive(Debug)]
pub(super) struct Watchdog {
    shell: Child,
}

impl Watchdog {
    /// Starts the shell. `data` is PostgreSQL's data directory; `remove` is the directory to remove at the end.
    pub(super) fn start(data: &Path, remove: Option<&Path>) -> anyhow::Result<Self> {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "ledger-watchdog"])
            .args([data, remove.unwrap_or(Path::new(""))])
            .current_dir("/")
            // In a process group of its own, the shell does not get the terminal's Ctrl-C.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start sh")?;
        Ok(Self { shell })
    }

    /// Sets the id of the process that the shell stops at the end of the input.
    pub(super) fn watch(&mut self, process_id: u32) -> anyhow::Result<()> {
        let input = self.shell.stdin.as_mut().context("the watchdog has no input")?;
        writeln!(input, "{process_id}").context("the watchdog has ended")
    }

    /// Ends the input and waits until the shell has ended. The script bounds the time.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        drop(self.shell.stdin.take());
        self.shell.wait().map(drop).context("waiting for the watchdog")
    }
}
