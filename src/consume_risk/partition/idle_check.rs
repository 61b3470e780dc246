//! An idle partition regularly checks that the database accepts writes and still holds its position.
//!
//! It writes nothing, so nothing else would show a failover. A failover that lost commits moves positions back: the
//! records in between would stay pending, and the lag would be shown as 0, until the next record arrives.

use std::time::{Duration, Instant};

use super::store::PartitionStore;
use crate::repository::{Connection, RepositoryError, positions::Position};

const CHECK_INTERVAL: Duration = Duration::from_secs(10);

pub(super) struct IdleCheck {
    checked_at: Instant,
}

impl IdleCheck {
    /// Creates a check that is due after the first interval.
    pub fn new() -> Self {
        Self { checked_at: Instant::now() }
    }

    /// Returns whether the interval has passed since the last check.
    pub fn is_due(&self) -> bool {
        self.checked_at.elapsed() >= CHECK_INTERVAL
    }

    /// Fails if the connection is lost, its server has become read-only, or the stored position is not `position`.
    pub async fn run(
        &mut self,
        store: &PartitionStore,
        connection: &mut Connection,
        position: Position,
    ) -> anyhow::Result<()> {
        self.checked_at = Instant::now();
        anyhow::ensure!(store.takes_writes(connection).await?, "the database has become read-only");
        let stored = store.position(connection).await?;
        if stored.is_none_or(|stored| stored.next_offset != position.next_offset) {
            return Err(RepositoryError::PositionMoved(store.name().to_string()).into());
        }
        Ok(())
    }
}
