//! A Kafka for a single test, which can kill it, freeze it and restart it with its data.

use std::{fs, net::SocketAddr};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::kafka_script::{self, DataDirectory};

/// Only one runs at a time, because each takes half a gigabyte of memory, and a core while it starts.
static PERMITS: Semaphore = Semaphore::const_new(1);

const HEAP: &str = "320m";

/// Waits until no other test has a Kafka of its own. For a test whose Kafka is started by another process.
pub async fn permit() -> SemaphorePermit<'static> {
    PERMITS.acquire().await.expect("never closed")
}

/// A broker that joined the cluster of another one, which stays the controller.
pub struct JoinedBroker {
    data: DataDirectory,
    options: [String; 4],
}

impl JoinedBroker {
    /// Starts it, also after it was stopped or killed, and returns when it answers.
    pub async fn up(&self) {
        let options = self.options.each_ref().map(String::as_str);
        self.data.up(HEAP, &options).await;
    }

    /// Stops it and returns when other brokers lead its partitions.
    pub async fn stop(&self) {
        self.data.down().await;
    }

    /// Kills it. Other brokers lead its partitions after some seconds.
    pub fn kill(&self) {
        signal(&self.data, Signal::SIGKILL);
    }
}

/// A broker that runs or was killed. It stops when it is dropped.
pub struct OwnKafka {
    /// The address of the broker, which is the same after a restart.
    pub address: SocketAddr,
    data: DataDirectory,
    _permit: SemaphorePermit<'static>,
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
            kafka_script::warn_skipped();
            return None;
        }
        let permit = permit().await;
        let data = DataDirectory::new();
        data.up(HEAP, options).await;
        let address = data.address().parse().expect("an address");
        Some(Self { address, data, _permit: permit })
    }

    /// Sends a signal, such as SIGKILL.
    pub fn signal(&self, signal: Signal) {
        self::signal(&self.data, signal);
    }

    /// Restarts it on its port with its data and returns when it answers.
    pub async fn up(&self) {
        self.data.up(HEAP, &[]).await;
    }

    /// Kills it and removes the records of a partition, as a disk that loses the end of a file does. The topic stays.
    pub fn lose_records(&self, topic: &str, partition: i32) {
        self.signal(Signal::SIGKILL);
        let folder = self.data.path.join("log").join(format!("{topic}-{partition}"));
        for file in fs::read_dir(folder).expect("the folder of the partition") {
            let path = file.expect("a file").path();
            if path.file_name().is_some_and(|name| name != "partition.metadata") {
                fs::remove_file(path).expect("removed");
            }
        }
    }

    /// Starts another broker of its cluster: number 2, then 3.
    pub async fn start_broker(&self, number: u32) -> JoinedBroker {
        let cluster = self.data.path.to_str().expect("UTF-8").to_owned();
        let options = ["--join".to_owned(), cluster, "--set".to_owned(), format!("node.id={number}")];
        let broker = JoinedBroker { data: DataDirectory::new(), options };
        broker.up().await;
        broker
    }

    /// Writes records of ten bytes to a topic in one Kafka transaction, as another program might.
    pub async fn write_in_a_transaction(&self, topic: &str, records: usize) {
        let (records, servers) = (records.to_string(), format!("bootstrap.servers={}", self.address));
        let load = ["--topic", topic, "--num-records", &records, "--record-size", "10", "--throughput", "-1"];
        let transaction = ["--transactional-id", "another", "--transaction-duration-ms", "60000"];
        let arguments = [&load[..], &transaction, &["--producer-props", &servers]].concat();
        kafka_script::program("org.apache.kafka.tools.ProducerPerformance", &arguments).await;
    }

    /// Runs one of Kafka's own tools against it and returns its output.
    pub async fn tool(&self, class: &str, arguments: &[&str]) -> String {
        kafka_script::tool(&self.address.to_string(), class, arguments).await
    }
}
