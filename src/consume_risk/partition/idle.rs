//! A partition in which nothing happens looks now and then whether the database is still the one that it knows.
//!
//! It writes nothing, so nothing would tell it of a failover. One that lost commits puts positions back: the records in
//! between would stay pending, and the lag would be shown as none, until the next record came.

use std::time::{Duration, Instant};

use super::{super::patience::answered, PartitionConsumer};
use crate::repository::{
    Connection, RepositoryError,
    positions::{self, Position},
    takes_writes,
};

const LOOK_INTERVAL: Duration = Duration::from_secs(10);

impl PartitionConsumer {
    /// An error if the connection is lost, its server has become read-only or the position is another than `position`;
    /// the next turn begins with what the database has then.
    pub(super) async fn look_again(
        &mut self,
        connection: &mut Connection,
        position: Position,
    ) -> anyhow::Result<()> {
        if self.looked_at.elapsed() < LOOK_INTERVAL {
            return Ok(());
        }
        self.looked_at = Instant::now();
        let takes_writes = answered(self.patience(), takes_writes(connection)).await?;
        anyhow::ensure!(takes_writes, "the database has become read-only");
        let stored = answered(self.patience(), positions::read(connection, &self.name)).await?;
        if stored.is_none_or(|stored| stored.next_offset != position.next_offset) {
            return Err(RepositoryError::PositionMoved(self.name.to_string()).into());
        }
        Ok(())
    }
}
