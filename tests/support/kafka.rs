//! One real Kafka per test run, by `scripts/kafka.sh`, and one more with TLS, SASL and rights; topics are the tests' own
//! (use fresh names).
//!
//! `Kafka::get()` and `Kafka::secured()` answer None where Java or Maven is missing: the test says so and returns. Where the environment
//! variable CI is set, that is a failure instead: a skipped test must not look like a passed one there.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// Ends the broker when the test process has ended: its input is a pipe that only we hold.
const WATCHDOG: &str = r#"
while read -r _; do :; done
"$1" down --data-dir "$2"
rm -rf -- "$2"
"#;

/// A running broker.
pub struct Kafka {
    /// `127.0.0.1:port`.
    pub bootstrap_servers: String,
    directory: PathBuf,
    /// Holds the watchdog's pipe open for as long as this process lives.
    _watchdog: std::process::Child,
}

impl Kafka {
    /// The broker of this run, started by the first test that asks. None, loudly, where it cannot be had.
    pub fn get() -> Option<&'static Self> {
        static KAFKA: OnceLock<Option<Kafka>> = OnceLock::new();
        Self::in_place(&KAFKA, &[])
    }

    /// The same with `scripts/kafka.sh up --secure`: every kind of listener beside the plain one, users and rights.
    pub fn secured() -> Option<&'static Self> {
        static KAFKA: OnceLock<Option<Kafka>> = OnceLock::new();
        Self::in_place(&KAFKA, &["--secure"])
    }

    fn in_place(place: &'static OnceLock<Option<Self>>, options: &[&str]) -> Option<&'static Self> {
        let kafka = place.get_or_init(|| match missing() {
            None => Some(start(options)),
            Some(missing) => {
                let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
                assert!(!ci, "no {missing} in CI: the Kafka tests cannot run");
                None
            }
        });
        if kafka.is_none() {
            // Straight to the terminal: the test harness hides what passing tests print.
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            let warning =
                format!("\nSKIPPED {test}: Kafka needs java and mvn (Debian: apt-get install maven)\n");
            let _ = std::fs::write("/dev/stderr", &warning).or_else(|_| std::fs::write("/dev/tty", &warning));
        }
        kafka.as_ref()
    }

    /// The keys that point a configuration at it.
    pub fn overrides(&self) -> [(&str, &str); 2] {
        [("broker.kind", "kafka"), ("broker.kafka.bootstrap_servers", &self.bootstrap_servers)]
    }

    /// A file that `--secure` made, such as `ca.pem`.
    pub fn secure_file(&self, name: &str) -> PathBuf {
        self.directory.join("secure").join(name)
    }

    /// Where the listener of that security protocol is: `localhost:port`.
    pub fn listener(&self, protocol: &str) -> String {
        let listeners = std::fs::read_to_string(self.secure_file("listeners")).expect("a secured Kafka");
        let address = listeners.lines().find_map(|line| line.strip_prefix(&format!("{protocol} ")));
        address.expect("a listener of that kind").to_owned()
    }

    /// What one of Kafka's own tools says, as the administrator; it must succeed.
    pub async fn tool(&self, class: &str, arguments: &[&str]) -> String {
        let output = tokio::process::Command::new(script())
            .args(["tool", class, "--bootstrap-server", &self.bootstrap_servers])
            .args(arguments)
            .output()
            .await
            .expect("the tool runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{class} {arguments:?}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }
}

pub(super) fn missing() -> Option<&'static str> {
    ["java", "mvn"].into_iter().find(|program| {
        let found =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        !found.is_ok_and(|status| status.success())
    })
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka.sh")
}

fn start(options: &[&str]) -> Kafka {
    let directory = tempfile::Builder::new().prefix("ledger-kafka-").tempdir().expect("directory").keep();
    let watchdog = Command::new("bash")
        .args(["-c", WATCHDOG, "ledger-kafka-watchdog"])
        .arg(script())
        .arg(&directory)
        // A Ctrl-C in the terminal is for the tests; their end is what it waits for.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("bash");
    // Read from a file: the broker lives on and would hold a pipe open.
    let output = directory.join("up");
    let log = directory.join("up.log");
    let status = Command::new(script())
        .args(["up", "--data-dir"])
        .arg(&directory)
        .args(options)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&output).expect("file"))
        .stderr(std::fs::File::create(&log).expect("file"))
        .status()
        .expect("scripts/kafka.sh runs");
    let said = std::fs::read_to_string(&output).expect("read");
    assert!(status.success(), "Kafka did not start: {}", std::fs::read_to_string(&log).expect("read"));
    let bootstrap_servers =
        std::fs::read_to_string(directory.join("bootstrap")).expect("written by kafka.sh");
    let bootstrap_servers = bootstrap_servers.trim().to_owned();
    assert!(said.contains("LEDGER_BROKER__KIND=kafka"), "{said}");
    Kafka { bootstrap_servers, directory, _watchdog: watchdog }
}
