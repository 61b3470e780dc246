//! The memory that the partitions of one process share, bounded however many partitions there are.
//!
//! - Histories: each partition gets an equal part.
//! - Records read ahead: a batch takes its part before it is decoded and returns it after it is handled. A partition
//!   that finds no room waits for the others. They do not depend on it, so the wait ends.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::broker::FetchedRecord;

/// The memory for the account histories of all partitions.
const HISTORIES_BYTES_MAX: usize = 60 << 20;
/// The memory for the decoded records of all partitions.
const RECORDS_BYTES_MAX: usize = 8 << 20;
/// One permit of the semaphore stands for this many bytes.
const UNIT_BYTES: usize = 1 << 10;
/// The memory that a decoded record takes in addition to its key and value, which it holds twice: as raw bytes and as
/// decoded fields.
const RECORD_OVERHEAD_BYTES: usize = 1_200;

/// The limits, shared by the partitions of a process.
#[derive(Debug)]
pub struct MemoryBudget {
    histories_bytes_max: usize,
    records: Arc<Semaphore>,
}

impl MemoryBudget {
    /// Divides the memory for a process that may own this many partitions at once.
    pub fn for_partitions(partitions: usize) -> Self {
        Self {
            histories_bytes_max: HISTORIES_BYTES_MAX / partitions.max(1),
            records: Arc::new(Semaphore::new(RECORDS_BYTES_MAX / UNIT_BYTES)),
        }
    }

    /// Returns the limit for the histories of one partition.
    pub(super) fn histories_bytes_max(&self) -> usize {
        self.histories_bytes_max
    }

    /// Waits for room for this many bytes of records. More bytes than the whole budget count as the whole budget.
    pub(super) async fn room_for_records(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.min(RECORDS_BYTES_MAX).div_ceil(UNIT_BYTES);
        Arc::clone(&self.records).acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)).await.ok()
    }
}

/// Returns about how much memory a decoded record takes. Its key and value point into a buffer that it shares with its
/// neighbours: about 64 KiB, or the whole Kafka batch if that is uncompressed or compressed with snappy. The buffer is
/// freed with the last of these records.
pub(super) fn record_bytes(record: &FetchedRecord) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    2 * (length(&record.key) + length(&record.value)) + RECORD_OVERHEAD_BYTES
}
