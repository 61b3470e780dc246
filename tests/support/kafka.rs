//! The shared brokers of a test run, started by `scripts/kafka.sh`: a plain one, and one with TLS, SASL and permissions.
//! Tests create topics with fresh names.
//!
//! `Kafka::get()` and `Kafka::secured()` return `None` if Java or Maven is missing: the test prints a warning and returns.
//! It fails instead if the environment variable CI is set.

use std::{path::PathBuf, sync::OnceLock};

use super::kafka_script::{self, DataDirectory};

/// A running broker.
pub struct Kafka {
    /// `127.0.0.1:port`.
    pub bootstrap_servers: String,
    data: DataDirectory,
}

impl Kafka {
    /// Returns the plain broker; the first call starts it.
    pub fn get() -> Option<&'static Self> {
        static KAFKA: OnceLock<Option<Kafka>> = OnceLock::new();
        Self::shared(&KAFKA, &[])
    }

    /// Returns the secured broker (`scripts/kafka.sh up --secure`): listeners of every kind, users and permissions.
    pub fn secured() -> Option<&'static Self> {
        static KAFKA: OnceLock<Option<Kafka>> = OnceLock::new();
        Self::shared(&KAFKA, &["--secure"])
    }

    /// Starts a secured broker for one test. A test that consumes a whole topic of the product needs it, because other
    /// tests publish to the same topics of the shared broker. The broker stops when it is dropped.
    pub async fn secured_alone() -> Option<Self> {
        if !kafka_script::is_possible() {
            kafka_script::warn_skipped();
            return None;
        }
        tokio::task::spawn_blocking(|| Some(Self::start(&["--secure"]))).await.expect("Kafka starts")
    }

    fn shared(slot: &'static OnceLock<Option<Self>>, options: &[&str]) -> Option<&'static Self> {
        let kafka = slot.get_or_init(|| kafka_script::is_possible().then(|| Self::start(options)));
        if kafka.is_none() {
            kafka_script::warn_skipped();
        }
        kafka.as_ref()
    }

    fn start(options: &[&str]) -> Self {
        let data = DataDirectory::new();
        data.up_blocking(options);
        Self { bootstrap_servers: data.address(), data }
    }

    /// Returns the settings that make a configuration use this broker.
    pub fn overrides(&self) -> [(&str, &str); 2] {
        [("broker.kind", "kafka"), ("broker.kafka.bootstrap_servers", &self.bootstrap_servers)]
    }

    /// Returns the path of a file that `--secure` created, such as `ca.pem`.
    pub fn secure_file(&self, name: &str) -> PathBuf {
        self.data.path.join("secure").join(name)
    }

    /// Returns the `localhost:port` of the listener with that security protocol.
    pub fn listener(&self, protocol: &str) -> String {
        let listeners = std::fs::read_to_string(self.secure_file("listeners")).expect("a secured Kafka");
        let address = listeners.lines().find_map(|line| line.strip_prefix(&format!("{protocol} ")));
        address.expect("a listener of that kind").to_owned()
    }

    /// Runs one of Kafka's own tools as the administrator and returns its output. It must succeed.
    pub async fn tool(&self, class: &str, arguments: &[&str]) -> String {
        kafka_script::tool(&self.bootstrap_servers, class, arguments).await
    }

    /// Runs a tool that reads `input`.
    pub async fn tool_with_input(&self, class: &str, arguments: &[&str], input: &str) -> String {
        let server = ["--bootstrap-server", &self.bootstrap_servers];
        kafka_script::program_with_input(class, &[&server[..], arguments].concat(), input).await
    }
}
