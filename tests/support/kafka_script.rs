//! Runs `scripts/kafka.sh`: brokers whose data directories are removed when the test process ends, and Kafka's tools.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use tokio::io::AsyncWriteExt;

/// Stops the broker when the test process ends. Only the test process holds the other end of the input pipe.
const WATCHDOG: &str = r#"
while read -r _; do :; done
"$1" down --data-dir "$2"
rm -rf -- "$2"
"#;

/// Returns whether this machine can run Kafka. Panics if it cannot and the environment variable CI is set, because a
/// skipped test must not look like a passed test there.
pub fn is_possible() -> bool {
    let Some(program) = ["java", "mvn"].into_iter().find(|program| !runs(program)) else { return true };
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    assert!(!ci, "no {program} in CI: the Kafka tests cannot run");
    false
}

/// Prints a warning to the terminal directly, because the test harness hides the output of passing tests.
pub(super) fn warn_skipped() {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let warning = format!("\nSKIPPED {test}: Kafka needs java and mvn (Debian: apt-get install maven)\n");
    let _ = fs::write("/dev/stderr", &warning).or_else(|_| fs::write("/dev/tty", &warning));
}

/// Fetches the jars, unless they are in the cache.
pub async fn fetch() {
    let mut command = tokio::process::Command::new(script());
    let output = command.arg("fetch").stdin(Stdio::null()).output().await.expect("scripts/kafka.sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn runs(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka.sh")
}

/// The data directory of a broker. The broker stops and the directory is removed when this is dropped, or when the process
/// ends in any way.
pub(super) struct DataDirectory {
    pub path: PathBuf,
    _watchdog: Child,
}

impl DataDirectory {
    pub fn new() -> Self {
        let path = tempfile::Builder::new().prefix("ledger-kafka-").tempdir().expect("directory").keep();
        let watchdog = Command::new("bash")
            .args(["-c", WATCHDOG, "ledger-kafka-watchdog"])
            .arg(script())
            .arg(&path)
            // Ctrl-C in the terminal must end only the tests; the watchdog then cleans up.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash");
        Self { path, _watchdog: watchdog }
    }

    /// Starts the broker on new or existing data and returns when it answers.
    pub fn up_blocking(&self, options: &[&str]) {
        let status = self.command(options).status().expect("scripts/kafka.sh runs");
        self.check(status);
    }

    /// Starts the broker with a heap of that size, without blocking other tasks.
    pub async fn up(&self, heap: &str, options: &[&str]) {
        let mut command = tokio::process::Command::from(self.command(options));
        let status = command.env("LEDGER_KAFKA_HEAP", heap).status().await.expect("scripts/kafka.sh runs");
        self.check(status);
    }

    /// Stops the broker and keeps its data.
    pub async fn down(&self) {
        let mut command = tokio::process::Command::new(script());
        command.args(["down", "--keep", "--data-dir"]).arg(&self.path).stdin(Stdio::null());
        assert!(command.status().await.expect("scripts/kafka.sh runs").success());
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(script());
        command.args(["up", "--data-dir"]).arg(&self.path).args(options).stdin(Stdio::null());
        // Output goes to files, because the running broker would keep a pipe open.
        command.stdout(self.file("up")).stderr(self.file("up.log"));
        command
    }

    fn file(&self, name: &str) -> File {
        File::create(self.path.join(name)).expect("file")
    }

    fn check(&self, status: ExitStatus) {
        let read = |name| fs::read_to_string(self.path.join(name)).expect("read");
        assert!(status.success(), "Kafka did not start: {}", read("up.log"));
        assert!(read("up").contains("LEDGER_BROKER__KIND=kafka"), "{}", read("up"));
    }

    /// Returns the address of the broker, `127.0.0.1:port`. It is the same after a restart.
    pub fn address(&self) -> String {
        let address = fs::read_to_string(self.path.join("bootstrap")).expect("written by kafka.sh");
        address.trim().to_owned()
    }
}

/// Runs one of Kafka's own tools and returns its output. It must succeed.
pub(super) async fn tool(address: &str, class: &str, arguments: &[&str]) -> String {
    program(class, &[&["--bootstrap-server", address], arguments].concat()).await
}

/// Runs one of Kafka's own programs, whose arguments say where to connect, and returns its output. It must succeed.
pub(super) async fn program(class: &str, arguments: &[&str]) -> String {
    program_with_input(class, arguments, "").await
}

/// Runs a program that reads `input`.
pub(super) async fn program_with_input(class: &str, arguments: &[&str], input: &str) -> String {
    let mut child = tokio::process::Command::new(script())
        .args(["tool", class])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool runs");
    let mut stdin = child.stdin.take().expect("piped");
    // A tool that reads nothing may end first.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.expect("the tool ends");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{class} {arguments:?}: {stdout}{stderr}");
    stdout
}
