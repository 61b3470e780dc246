//! A second Kafka client, the crate rskafka, which shares no code with the client under test. It finds a fault that the
//! product's own encoder and decoder share.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ledger::config::Compression as Configured;
use rskafka::{
    client::{
        Client, ClientBuilder,
        partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling},
    },
    record::{Record, RecordAndOffset},
};

const FETCH_BYTES_MAX: i32 = 16 << 20;
const FETCH_WAIT_MS: i32 = 1_000;
const CREATE_TIMEOUT_MS: i32 = 10_000;

/// Connects to the broker at `host:port`.
pub async fn connect(address: &str) -> Client {
    ClientBuilder::new(vec![address.to_owned()]).build().await.expect("rskafka connects")
}

/// Creates a topic.
pub async fn create_topic(client: &Client, topic: &str, partitions: i32) {
    let controller = client.controller_client().expect("a controller");
    controller.create_topic(topic, partitions, 1, CREATE_TIMEOUT_MS).await.expect("created");
}

async fn partition(client: &Client, topic: &str, partition: i32) -> PartitionClient {
    client.partition_client(topic, partition, UnknownTopicHandling::Retry).await.expect("a leader")
}

/// Reads all records of a partition.
pub async fn read_all(client: &Client, topic: &str, number: i32) -> Vec<RecordAndOffset> {
    let partition = partition(client, topic, number).await;
    let end = partition.get_offset(OffsetAt::Latest).await.expect("an offset");
    let mut records: Vec<RecordAndOffset> = Vec::new();
    let mut next = 0;
    while next < end {
        let fetched = partition.fetch_records(next, 1..FETCH_BYTES_MAX, FETCH_WAIT_MS).await;
        let (found, _) = fetched.expect("rskafka reads the records");
        next = found.last().expect("records before the end").offset + 1;
        records.extend(found);
    }
    records
}

/// Publishes records to a partition as one batch.
pub async fn produce(
    client: &Client,
    topic: &str,
    number: i32,
    records: Vec<Record>,
    compression: Configured,
) {
    let compression = match compression {
        Configured::None => Compression::NoCompression,
        Configured::Gzip => Compression::Gzip,
        Configured::Snappy => Compression::Snappy,
        Configured::Lz4 => Compression::Lz4,
        Configured::Zstd => Compression::Zstd,
    };
    partition(client, topic, number).await.produce(records, compression).await.expect("published");
}

/// A record with these headers.
pub fn record(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: BTreeMap<String, Vec<u8>>,
    timestamp: DateTime<Utc>,
) -> Record {
    Record { key: key.map(Into::into), value: value.map(Into::into), headers, timestamp }
}
