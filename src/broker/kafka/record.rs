//! Records and compression, between rskafka's shapes and ours.

use rskafka::{
    client::partition::Compression,
    record::{Record, RecordAndOffset},
};

use crate::broker::{FetchedRecord, OutgoingRecord};

/// The configuration has been checked to hold one of these.
pub(super) fn compression(name: &str) -> Compression {
    match name {
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => Compression::NoCompression,
    }
}

pub(super) fn outgoing(record: OutgoingRecord) -> Record {
    Record {
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().collect(),
        timestamp: record.timestamp,
    }
}

pub(super) fn fetched(found: RecordAndOffset) -> FetchedRecord {
    FetchedRecord {
        offset: found.offset,
        key: found.record.key,
        value: found.record.value,
        headers: found.record.headers.into_iter().collect(),
        timestamp: found.record.timestamp,
    }
}
