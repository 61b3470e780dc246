//! The lock that keeps a record that may crash the process apart from all other records of the process.
//!
//! Guarantees: while such a record is retried, no other partition scores anything, so a crash cannot be blamed on
//! another record. The partitions share the lock only while they score, not while they wait for the database, so a
//! slow statement of one partition does not delay the others. Only a retry holds the lock alone, until it has ended, its
//! statements included.

use std::sync::Arc;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Shared by the partitions of a process. Clones are the same lock.
#[derive(Debug, Clone, Default)]
pub struct ScoringIsolation(Arc<RwLock<()>>);

impl ScoringIsolation {
    /// Waits until no suspicious record is being retried.
    pub(super) async fn share(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().await
    }

    /// Waits until no other partition scores, and keeps them from it until the guard is dropped.
    pub(super) async fn isolate(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.write().await
    }
}
