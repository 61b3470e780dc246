//! Prometheus's own checker, which `scripts/platform-tools.sh prometheus` installs once. A test that needs it fails without
//! it.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

fn promtool() -> &'static Path {
    static PROMTOOL: OnceLock<PathBuf> = OnceLock::new();
    PROMTOOL.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/platform-tools.sh");
        let installed = Command::new(script).arg("prometheus").output().expect("the script runs");
        let stderr = String::from_utf8_lossy(&installed.stderr);
        assert!(installed.status.success(), "promtool cannot be installed: {stderr}");
        let folder = String::from_utf8(installed.stdout).expect("a path");
        Path::new(folder.trim()).join("bin/promtool")
    })
}

/// Runs promtool with an input, and returns its output, and whether it found nothing wrong.
pub fn run(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(promtool());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("ended");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}
