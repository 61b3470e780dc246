//! Where the group is in the partition: as the database has it, made where the group is new, and moved over what is no
//! record.

use anyhow::Context as _;

use super::{
    super::{patience::answered, reader::Reader},
    PartitionConsumer,
};
use crate::{
    broker::BrokerError,
    repository::{
        Connection, leases,
        positions::{self, Position},
        transaction,
    },
};

impl PartitionConsumer {
    pub(super) async fn position(&mut self, connection: &mut Connection) -> anyhow::Result<Position> {
        if let Some(position) = self.position {
            return Ok(position);
        }
        let mut found = answered(self.patience(), positions::read(connection, &self.name)).await?;
        if found.is_none() {
            self.begin(connection).await?;
            found = answered(self.patience(), positions::read(connection, &self.name)).await?;
        }
        let position = found.with_context(|| format!("the position of {} has vanished", self.name))?;
        self.position = Some(position);
        Ok(position)
    }

    /// The position of a group that is new to the partition, where its records begin.
    async fn begin(&self, connection: &mut Connection) -> anyhow::Result<()> {
        let (lease, name) = (&self.lease, &self.name);
        let earliest = self.earliest().await?;
        let creating = transaction("begin a partition", connection, async |connection: &mut Connection| {
            leases::hold(connection, &[lease]).await?;
            positions::create(connection, name, earliest).await
        });
        answered(self.patience(), creating).await?;
        // Retention may have removed records before it knew of the position: for a new group they were never there.
        let later = self.earliest().await?;
        if later > earliest {
            let moving = transaction("begin a partition", connection, async |connection: &mut Connection| {
                leases::hold(connection, &[lease]).await?;
                positions::advance(connection, name, earliest, later, false).await
            });
            answered(self.patience(), moving).await?;
        }
        Ok(())
    }

    async fn earliest(&self) -> Result<i64, BrokerError> {
        Ok(self.broker.offset_range(&self.name.topic, self.name.partition).await?.earliest)
    }

    /// Moves the position behind what is no record, where nothing else comes after it: lag would never become 0, and
    /// retention would take it away from under the position.
    pub(super) async fn pass_marks(
        &mut self,
        connection: &mut Connection,
        position: Position,
    ) -> anyhow::Result<Position> {
        let (from, to) = (position.next_offset, self.reader.as_ref().map_or(0, Reader::passed));
        if to <= from {
            return Ok(position);
        }
        let interrupted = self.is_careful(to);
        let (lease, name) = (&self.lease, &self.name);
        let moving = transaction("pass marks", connection, async |connection: &mut Connection| {
            leases::hold(connection, &[lease]).await?;
            positions::advance(connection, name, from, to, interrupted).await
        });
        answered(self.patience(), moving).await?;
        self.moved_to(to, interrupted);
        Ok(self.position.unwrap_or(position))
    }

    pub(super) fn moved_to(&mut self, next_offset: i64, interrupted: bool) {
        self.position = Some(Position { next_offset, attempts: 0, interrupted });
        self.open_try = None;
        if !interrupted {
            self.careful_until = None;
        }
    }
}
