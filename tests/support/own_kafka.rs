//! A Kafka of one test's own, to be killed, frozen and brought back with its data. For whatever the shared one must not
//! suffer.

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::kafka::missing;

/// Each takes half a gigabyte and, while it starts, a core.
static AT_ONCE: Semaphore = Semaphore::const_new(1);

/// Ends the broker when this process has ended: its input is a pipe that only we hold.
const WATCHDOG: &str = r#"
while read -r _; do :; done
"$1" down --data-dir "$2"
rm -rf -- "$2"
"#;

/// A running broker, or one that was killed. Ends when dropped.
pub struct OwnKafka {
    /// Where it listens, also after it was brought back.
    pub address: SocketAddr,
    directory: PathBuf,
    _watchdog: Child,
    _turn: SemaphorePermit<'static>,
}

impl OwnKafka {
    /// A fresh one. None, loudly, where it cannot be had, as with `Kafka::get`.
    pub async fn start() -> Option<Self> {
        if let Some(program) = missing() {
            let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
            assert!(!ci, "no {program} in CI: the Kafka tests cannot run");
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            let _ = fs::write("/dev/stderr", format!("\nSKIPPED {test}: Kafka needs {program}\n"));
            return None;
        }
        let turn = AT_ONCE.acquire().await.expect("never closed");
        let directory = tempfile::Builder::new().prefix("ledger-kafka-").tempdir().expect("directory").keep();
        let watchdog = Command::new("bash")
            .args(["-c", WATCHDOG, "ledger-kafka-watchdog"])
            .arg(script())
            .arg(&directory)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash");
        up(&directory).await;
        let address = fs::read_to_string(directory.join("bootstrap")).expect("written by kafka.sh");
        let address = address.trim().parse().expect("an address");
        Some(Self { address, directory, _watchdog: watchdog, _turn: turn })
    }

    /// `kill -9`, or whatever else.
    pub fn signal(&self, signal: Signal) {
        let pid = fs::read_to_string(self.directory.join("pid")).expect("written by kafka.sh");
        kill(Pid::from_raw(pid.trim().parse().expect("a process id")), signal).expect("signalled");
    }

    /// Starts it again after it was killed, on its port and with its data; returns when it answers.
    pub async fn up(&self) {
        up(&self.directory).await;
    }

    /// Runs one of Kafka's own tools against it and answers what it printed.
    pub async fn tool(&self, class: &str, arguments: &[&str]) -> String {
        let output = tokio::process::Command::new(script())
            .args(["tool", class, "--bootstrap-server", &self.address.to_string()])
            .args(arguments)
            .output()
            .await
            .expect("the tool runs");
        assert!(output.status.success(), "{class}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka.sh")
}

async fn up(directory: &Path) {
    // Into files: the broker lives on and would hold a pipe open.
    let log = directory.join("up.log");
    let status = tokio::process::Command::new(script())
        .args(["up", "--data-dir"])
        .arg(directory)
        .env("LEDGER_KAFKA_HEAP", "320m")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).expect("file"))
        .status()
        .await
        .expect("scripts/kafka.sh runs");
    assert!(status.success(), "Kafka did not start: {}", fs::read_to_string(&log).expect("read"));
}
