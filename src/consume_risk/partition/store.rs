//! One partition in the database: its position, its attempts, its results.
//!
//! Guarantees: every write holds the lease in the same database transaction, so an owner that lost the lease writes
//! nothing. Every wait for the database has a limit.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use super::{
    super::{
        answer_timeout::{answer_timeout, answered_within},
        assess::Assessed,
    },
    halt::Halted,
};
use crate::{
    config::Config,
    repository::{
        Connection, RepositoryError,
        assessments::{self, WrittenAssessments},
        dead_letters::{self, NewDeadLetter},
        leases,
        positions::{self, PartitionName, Position, PositionMove},
        takes_writes, transaction,
        transactions::{self, SequenceGap},
    },
    runtime::{Lease, fail_point},
};

/// The results of handled records. They are committed together with the move of the position past these records.
pub(super) struct Results {
    pub assessed: Assessed,
    pub dead_letters: Vec<NewDeadLetter>,
}

/// The part of the database that belongs to one partition. Cheap to clone.
#[derive(Clone)]
pub(super) struct PartitionStore {
    config: Arc<Config>,
    name: PartitionName,
    lease: Lease,
}

impl PartitionStore {
    /// Creates the store without opening a connection.
    pub fn new(config: Arc<Config>, name: PartitionName, lease: Lease) -> Self {
        Self { config, name, lease }
    }

    /// Returns the group, topic and partition.
    pub fn name(&self) -> &PartitionName {
        &self.name
    }

    /// Returns how long to wait for an answer of the database.
    pub fn answer_timeout(&self) -> Duration {
        answer_timeout(&self.config.database)
    }

    /// Returns false if the server has become read-only.
    pub async fn takes_writes(&self, connection: &mut Connection) -> Result<bool, RepositoryError> {
        self.answered(takes_writes(connection)).await
    }

    /// Reads the position, if the group has one.
    pub async fn position(&self, connection: &mut Connection) -> Result<Option<Position>, RepositoryError> {
        self.answered(positions::read(connection, &self.name)).await
    }

    /// Returns those of the given transactions whose predecessor was neither assessed nor dead-lettered.
    pub async fn sequence_gaps(
        &self,
        connection: &mut Connection,
        suspected: &[SequenceGap],
    ) -> Result<Vec<SequenceGap>, RepositoryError> {
        self.answered(transactions::sequence_gaps(connection, &self.name.group, suspected)).await
    }

    /// Creates the position of a group that is new to the partition.
    pub async fn create_position(
        &self,
        connection: &mut Connection,
        offset: i64,
        log_id: Option<Uuid>,
    ) -> Result<(), RepositoryError> {
        let (lease, name) = (&self.lease, &self.name);
        let creating = transaction("create a position", connection, async |connection: &mut Connection| {
            leases::hold(connection, &[lease]).await?;
            positions::create(connection, name, offset, log_id).await
        });
        self.answered(creating).await
    }

    /// Notes which log the position at `offset` belongs to.
    pub async fn adopt_log(
        &self,
        connection: &mut Connection,
        offset: i64,
        log_id: Uuid,
    ) -> Result<(), RepositoryError> {
        let (lease, name) = (&self.lease, &self.name);
        let adopting = transaction("adopt a log", connection, async |connection: &mut Connection| {
            leases::hold(connection, &[lease]).await?;
            positions::adopt_log(connection, name, offset, log_id).await
        });
        self.answered(adopting).await
    }

    /// Returns why the partition is halted, or None if it is not.
    pub async fn halted(&self, connection: &mut Connection) -> Result<Option<Halted>, RepositoryError> {
        let halt = self.answered(positions::halt(connection, &self.name)).await?;
        Ok(halt.map(|halt| Halted::new(&self.name, halt.reason)))
    }

    /// Halts the partition at its position, until an operator resets it.
    pub async fn halt(&self, connection: &mut Connection, reason: String) -> Result<Halted, RepositoryError> {
        let (lease, name) = (&self.lease, &self.name);
        let halting = transaction("halt a partition", connection, async |connection: &mut Connection| {
            leases::hold(connection, &[lease]).await?;
            positions::halt_here(connection, name, &reason).await
        });
        self.answered(halting).await?;
        Ok(Halted::new(name, reason))
    }

    /// Moves the position over offsets that hold no records.
    pub async fn advance(
        &self,
        connection: &mut Connection,
        change: PositionMove,
    ) -> Result<(), RepositoryError> {
        let (lease, name) = (&self.lease, &self.name);
        let moving = transaction("advance a position", connection, async |connection: &mut Connection| {
            leases::hold(connection, &[lease]).await?;
            positions::advance(connection, name, change).await
        });
        self.answered(moving).await
    }

    /// Notes that an attempt at `offset` begins. `attempts` is its number, or 0 for a batch.
    pub async fn note_attempt(
        &self,
        connection: &mut Connection,
        offset: i64,
        attempts: i32,
    ) -> Result<(), RepositoryError> {
        let (lease, name) = (&self.lease, &self.name);
        let noting = transaction("note an attempt", connection, async |connection: &mut Connection| {
            leases::hold(connection, &[lease]).await?;
            positions::note_attempt(connection, name, offset, attempts).await
        });
        self.answered(noting).await?;
        fail_point::reach("consume-risk/noted");
        Ok(())
    }

    /// Takes back the note of the last attempt at `offset`, unless the position has moved.
    pub async fn take_back_attempt(
        &self,
        connection: &mut Connection,
        offset: i64,
    ) -> Result<(), RepositoryError> {
        let (lease, name) = (&self.lease, &self.name);
        let taking_back =
            transaction("take back an attempt", connection, async |connection: &mut Connection| {
                leases::hold(connection, &[lease]).await?;
                match positions::read(connection, name).await? {
                    Some(Position { next_offset, attempts, .. }) if next_offset == offset && attempts > 0 => {
                        positions::note_attempt(connection, name, offset, attempts - 1).await
                    }
                    _ => Ok(()),
                }
            });
        self.answered(taking_back).await
    }

    /// Writes results, their events and the position in one commit.
    pub async fn write(
        &self,
        connection: &mut Connection,
        change: PositionMove,
        Results { assessed, dead_letters }: &Results,
    ) -> Result<Vec<WrittenAssessments>, RepositoryError> {
        let (lease, name) = (&self.lease, &self.name);
        let (rows, ruleset, assessed_at) = (&assessed.rows, &*assessed.ruleset, assessed.assessed_at);
        let writing = transaction("assess", connection, async |connection: &mut Connection| {
            leases::hold(connection, &[lease]).await?;
            positions::advance(connection, name, change).await?;
            let written = assessments::record(connection, rows, ruleset, assessed_at).await?;
            fail_point::reach("consume-risk/writing");
            if !dead_letters.is_empty() {
                dead_letters::insert(connection, name, dead_letters).await?;
                fail_point::reach("consume-risk/dead-lettering");
            }
            Ok(written)
        });
        let written = self.answered(writing).await?;
        if !dead_letters.is_empty() {
            fail_point::reach("consume-risk/dead-lettered");
        }
        Ok(written)
    }

    async fn answered<T>(
        &self,
        work: impl Future<Output = Result<T, RepositoryError>>,
    ) -> Result<T, RepositoryError> {
        answered_within(self.answer_timeout(), work).await
    }
}
