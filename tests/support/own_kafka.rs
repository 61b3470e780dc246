//! A Kafka of one test's own, to be killed, frozen and brought back with its data. For whatever the shared one must not
//! suffer.

use std::{fs, net::SocketAddr};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::kafka_script::{self, DataDirectory};

/// Each takes half a gigabyte and, while it starts, a core.
static AT_ONCE: Semaphore = Semaphore::const_new(1);

const HEAP: &str = "320m";

/// The second broker of a cluster.
pub struct SecondBroker(DataDirectory);

impl SecondBroker {
    /// Asks it to stop; returns when its partitions are led by the other one.
    pub async fn stop(&self) {
        self.0.down().await;
    }

    /// `kill -9`: the other one leads its partitions once it was silent for some seconds.
    pub fn kill(&self) {
        signal(&self.0, Signal::SIGKILL);
    }
}

/// A running broker, or one that was killed. Ends when dropped.
pub struct OwnKafka {
    /// Where it listens, also after it was brought back.
    pub address: SocketAddr,
    data: DataDirectory,
    _turn: SemaphorePermit<'static>,
}

fn signal(data: &DataDirectory, signal: Signal) {
    let pid = fs::read_to_string(data.path.join("pid")).expect("written by kafka.sh");
    kill(Pid::from_raw(pid.trim().parse().expect("a process id")), signal).expect("signalled");
}

impl OwnKafka {
    /// Starts a fresh broker. Returns `None`, with a warning, where that is not possible, as `Kafka::get` does.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a fresh broker with options of `scripts/kafka.sh up`.
    pub async fn start_with(options: &[&str]) -> Option<Self> {
        if !kafka_script::is_possible() {
            kafka_script::say_skipped();
            return None;
        }
        let turn = AT_ONCE.acquire().await.expect("never closed");
        let data = DataDirectory::new();
        data.up(HEAP, options).await;
        let address = data.address().parse().expect("an address");
        Some(Self { address, data, _turn: turn })
    }

    /// `kill -9`, or whatever else.
    pub fn signal(&self, signal: Signal) {
        self::signal(&self.data, signal);
    }

    /// Starts it again after it was killed, on its port and with its data; returns when it answers.
    pub async fn up(&self) {
        self.data.up(HEAP, &[]).await;
    }

    /// Starts a second broker of its cluster.
    pub async fn beside(&self) -> SecondBroker {
        let data = DataDirectory::new();
        data.up(HEAP, &["--beside", self.data.path.to_str().expect("UTF-8")]).await;
        SecondBroker(data)
    }

    /// Writes so many records of ten bytes to a topic, in one transaction, as another program might.
    pub async fn write_in_a_transaction(&self, topic: &str, records: usize) {
        let (records, servers) = (records.to_string(), format!("bootstrap.servers={}", self.address));
        let what = ["--topic", topic, "--num-records", &records, "--record-size", "10", "--throughput", "-1"];
        let how = ["--transactional-id", "another", "--transaction-duration-ms", "60000"];
        let arguments = [&what[..], &how, &["--producer-props", &servers]].concat();
        kafka_script::program("org.apache.kafka.tools.ProducerPerformance", &arguments).await;
    }

    /// Runs one of Kafka's own tools against it and answers what it printed.
    pub async fn tool(&self, class: &str, arguments: &[&str]) -> String {
        kafka_script::tool(&self.address.to_string(), class, arguments).await
    }
}
