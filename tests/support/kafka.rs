//! One real Kafka per test run, by `scripts/kafka.sh`, and one more with TLS, SASL and rights; topics are the tests' own
//! (use fresh names).
//!
//! `Kafka::get()` and `Kafka::secured()` answer None where Java or Maven is missing: the test says so and returns. Where
//! the environment variable CI is set, that is a failure instead.

use std::{path::PathBuf, sync::OnceLock};

use super::kafka_script::{self, DataDirectory};

/// A running broker.
pub struct Kafka {
    /// `127.0.0.1:port`.
    pub bootstrap_servers: String,
    data: DataDirectory,
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

    /// A secured one of a test's own: for whoever consumes a topic of the product whole, since on the shared one other
    /// tests publish there too. Ends when dropped.
    pub async fn secured_alone() -> Option<Self> {
        if !kafka_script::is_possible() {
            kafka_script::say_skipped();
            return None;
        }
        tokio::task::spawn_blocking(|| Some(Self::start(&["--secure"]))).await.expect("it starts")
    }

    fn in_place(place: &'static OnceLock<Option<Self>>, options: &[&str]) -> Option<&'static Self> {
        let kafka = place.get_or_init(|| kafka_script::is_possible().then(|| Self::start(options)));
        if kafka.is_none() {
            kafka_script::say_skipped();
        }
        kafka.as_ref()
    }

    fn start(options: &[&str]) -> Self {
        let data = DataDirectory::new();
        data.up_blocking(options);
        Self { bootstrap_servers: data.address(), data }
    }

    /// The keys that point a configuration at it.
    pub fn overrides(&self) -> [(&str, &str); 2] {
        [("broker.kind", "kafka"), ("broker.kafka.bootstrap_servers", &self.bootstrap_servers)]
    }

    /// A file that `--secure` made, such as `ca.pem`.
    pub fn secure_file(&self, name: &str) -> PathBuf {
        self.data.path.join("secure").join(name)
    }

    /// Where the listener of that security protocol is: `localhost:port`.
    pub fn listener(&self, protocol: &str) -> String {
        let listeners = std::fs::read_to_string(self.secure_file("listeners")).expect("a secured Kafka");
        let address = listeners.lines().find_map(|line| line.strip_prefix(&format!("{protocol} ")));
        address.expect("a listener of that kind").to_owned()
    }

    /// What one of Kafka's own tools says, as the administrator; it must succeed.
    pub async fn tool(&self, class: &str, arguments: &[&str]) -> String {
        kafka_script::tool(&self.bootstrap_servers, class, arguments).await
    }

    /// The same for a tool that reads `input`.
    pub async fn tool_with_input(&self, class: &str, arguments: &[&str], input: &str) -> String {
        let server = ["--bootstrap-server", &self.bootstrap_servers];
        kafka_script::program_with_input(class, &[&server[..], arguments].concat(), input).await
    }
}
