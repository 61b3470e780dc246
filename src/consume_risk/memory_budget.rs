//! The memory that the partitions of one process share, so that it is bounded however many they are.
//!
//! Histories: each partition gets an equal part. Records read ahead: each batch takes its part of the whole while it is
//! decoded, and gives it back when it has been handled; a partition whose records find no room waits for the others,
//! which need nothing of it to go on.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::broker::FetchedRecord;

/// Account histories of all partitions.
const HISTORIES_BYTES_MAX: usize = 60 << 20;
/// Decoded records of all partitions.
const RECORDS_BYTES_MAX: usize = 8 << 20;
/// Permits count in units of this many bytes.
const UNIT_BYTES: usize = 1 << 10;
/// What a record takes decoded: its key and value as they are and as fields, and this much for headers and the rest.
const RECORD_OVERHEAD_BYTES: usize = 1_200;

/// Shared by the partitions of a process.
#[derive(Debug)]
pub struct MemoryBudget {
    histories_bytes_max: usize,
    records: Arc<Semaphore>,
}

impl MemoryBudget {
    /// For a process that may own this many partitions at once.
    pub fn for_partitions(partitions: usize) -> Self {
        Self {
            histories_bytes_max: HISTORIES_BYTES_MAX / partitions.max(1),
            records: Arc::new(Semaphore::new(RECORDS_BYTES_MAX / UNIT_BYTES)),
        }
    }

    /// For the histories of one partition.
    pub(super) fn histories_bytes_max(&self) -> usize {
        self.histories_bytes_max
    }

    /// Waits until there is room for so many bytes of records, or for as many as there can be.
    pub(super) async fn room_for_records(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.min(RECORDS_BYTES_MAX).div_ceil(UNIT_BYTES);
        Arc::clone(&self.records).acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)).await.ok()
    }
}

/// What a record takes once it is decoded, about. It is a slice of some 64 KiB that it shares with its neighbours, or of
/// its whole batch where that is compressed by snappy or not at all; either is given back with the last of them.
pub(super) fn record_bytes(record: &FetchedRecord) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    2 * (length(&record.key) + length(&record.value)) + RECORD_OVERHEAD_BYTES
}
