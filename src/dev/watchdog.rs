//! Ends a private server when this process ends, however it ends: a shell that outlives us waits for the end of a
//! pipe that only we hold, then stops the server and, if asked to, removes its directory. A clean stop needs none of
//! it; `kill -9`, a panic and a test runner that just exits do.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;

/// Reads process ids, one a line, and acts on the last one at the end of input. It touches the process only while
/// the data directory's own `postmaster.pid` names it: a later process with the same number is safe.
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

/// A watchdog over one data directory. Dropping it is the end that it waits for.
#[derive(Debug)]
pub(super) struct Watchdog {
    shell: Child,
}

impl Watchdog {
    /// Starts it. `data` is PostgreSQL's data directory; `remove` is what to remove in the end.
    pub(super) fn start(data: &Path, remove: Option<&Path>) -> anyhow::Result<Self> {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "ledger-watchdog"])
            .args([data, remove.unwrap_or(Path::new(""))])
            .current_dir("/")
            // A Ctrl-C in the terminal is for us, not for it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start sh")?;
        Ok(Self { shell })
    }

    /// Names the server's process.
    pub(super) fn watch(&mut self, process_id: u32) -> anyhow::Result<()> {
        let input = self.shell.stdin.as_mut().context("the watchdog has no input")?;
        writeln!(input, "{process_id}").context("the watchdog has ended")
    }

    /// Lets it do its work now and waits for its end; the work is bounded by the script.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        drop(self.shell.stdin.take());
        self.shell.wait().map(drop).context("waiting for the watchdog")
    }
}
