//! The memory that the partitions of one process share, bounded however many partitions there are.
//!
//! - Histories: each partition that the process owns gets an equal part of `risk.history_memory_mib`.
//! - Records read ahead: a batch takes its part before it is decoded and returns it after it is handled. A partition
//!   that finds no room waits for the others. They do not depend on it, so the wait ends.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::broker::FetchedRecord;

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
    histories: HistoryShare,
    records: Arc<Semaphore>,
}

/// The part of one partition in the memory for histories.
#[derive(Debug, Default)]
pub(super) struct HistoryShare {
    /// The limit for all partitions.
    bytes_max: usize,
    /// Cloned into each share, which counts them. The budget holds one more.
    shares: Arc<()>,
}

impl HistoryShare {
    /// Returns the limit for the partition. It is smaller when the process owns more partitions.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max / Arc::strong_count(&self.shares).saturating_sub(1).max(1)
    }
}

impl MemoryBudget {
    /// Creates a budget with this many bytes for the histories of all partitions.
    pub(super) fn new(histories_bytes_max: usize) -> Self {
        Self {
            histories: HistoryShare { bytes_max: histories_bytes_max, shares: Arc::default() },
            records: Arc::new(Semaphore::new(RECORDS_BYTES_MAX / UNIT_BYTES)),
        }
    }

    /// Returns a share for the histories of another partition.
    pub(super) fn share(&self) -> HistoryShare {
        HistoryShare { bytes_max: self.histories.bytes_max, shares: Arc::clone(&self.histories.shares) }
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
