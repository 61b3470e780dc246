//! What can go wrong with the database, sorted by what the caller can do about it.

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use crate::domain::Decision;

/// The text that `ledger_stale_group()` raises; see the first migration.
const STALE_GROUP: &str = "an account of the group has moved on";
const DEADLOCK: &str = "deadlock detected";
/// What the server says, in the middle of a message, when it has no more of something: class 53 of its errors, whose
/// code does not get this far.
const OUT_OF_ROOM: [&str; 4] =
    ["No space left on device", "Disk quota exceeded", "out of memory", "out of shared memory"];

/// An error of this layer.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// No connection could be had: refused, timed out, wrong credentials, TLS. The text says which and where.
    #[error("cannot connect to PostgreSQL at {address}: {detail}")]
    Connect {
        /// Host and port, never the password.
        address: String,
        /// What the driver or the server said.
        detail: String,
    },
    /// All pooled connections are busy.
    #[error("no free database connection within {0:?}")]
    PoolExhausted(std::time::Duration),
    /// The server did not answer in time and may still be at it: the outcome is unknown, and the connection must go.
    #[error("no answer from PostgreSQL within {0:?}")]
    NoAnswer(std::time::Duration),
    /// The lease's epoch moved on: somebody else holds it now. Roll back and stop.
    #[error("the lease {0} was lost")]
    LeaseLost(String),
    /// A consumer's position is not where this transaction expected it. Roll back and read it again.
    #[error("the position of {0} has moved")]
    PositionMoved(String),
    /// The outbox does not hold what was to be removed from it and nothing else. Roll back and remove row by row.
    #[error("the outbox holds {found} rows where {expected} were to be removed")]
    OutboxDiffers {
        /// Rows to be removed.
        expected: usize,
        /// Rows found there.
        found: usize,
    },
    /// A request of a group that was to be posted whole is not taken; nothing was written.
    #[error("request {position} of the group is not taken")]
    GroupRefused {
        /// Its place in the group, from 0.
        position: usize,
        /// Why.
        decision: Box<Decision>,
    },
    /// A dry run lost its session, and with it the effect of its earlier groups.
    #[error("the connection was lost, and with it what the dry run remembered; run it again")]
    DryRunLost,
    /// The schema is older or newer than this binary.
    #[error("the database schema is at version {found}, but this binary needs {wanted}; {advice}")]
    SchemaMismatch {
        /// Newest applied migration, or `none`.
        found: String,
        /// Newest compiled-in migration.
        wanted: String,
        /// What to do.
        advice: &'static str,
    },
    /// A migration failed.
    #[error("a migration failed: {0}")]
    Migration(String),
    /// A row holds what the domain does not know; the database was changed by hand.
    #[error("the database holds an invalid {what}: {detail}")]
    Corrupt {
        /// Which value.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// Anything PostgreSQL or the driver said.
    #[error("database error: {0}")]
    Database(#[from] DieselError),
}

impl RepositoryError {
    /// A serialisation failure or a deadlock: the same transaction may simply be run again.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Database(DieselError::DatabaseError(DatabaseErrorKind::SerializationFailure, _)) => true,
            Self::Database(DieselError::DatabaseError(_, info)) => info.message() == DEADLOCK,
            _ => false,
        }
    }

    /// The fast path's check failed: an account moved on, or a key exists already.
    pub fn is_stale_group(&self) -> bool {
        match self {
            Self::Database(DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => true,
            Self::Database(DieselError::DatabaseError(_, info)) => info.message() == STALE_GROUP,
            _ => false,
        }
    }

    /// The connection is of no use any more, or the server is starting, stopping or a standby: connect again.
    pub fn is_connection_lost(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::NoAnswer(_) => true,
            Self::Database(DieselError::BrokenTransactionManager) => true,
            Self::Database(DieselError::DatabaseError(kind, info)) => {
                matches!(
                    kind,
                    DatabaseErrorKind::UnableToSendCommand
                        | DatabaseErrorKind::ClosedConnection
                        | DatabaseErrorKind::ReadOnlyTransaction
                ) || info.message().starts_with("terminating connection")
                    || info.message().starts_with("the database system is")
            }
            _ => false,
        }
    }

    /// The server's disk or memory is full; until there is room again it takes nothing.
    fn is_out_of_room(&self) -> bool {
        let Self::Database(DieselError::DatabaseError(_, info)) = self else { return false };
        OUT_OF_ROOM.iter().any(|words| info.message().contains(words))
    }

    /// Trouble of the infrastructure that passes without anybody changing the request.
    pub fn is_transient(&self) -> bool {
        let timed_out = |info: &str| info.starts_with("canceling statement");
        self.is_connection_lost()
            || self.is_conflict()
            || self.is_out_of_room()
            || matches!(self, Self::PoolExhausted(_))
            || matches!(self, Self::Database(DieselError::DatabaseError(_, info)) if timed_out(info.message()))
    }
}
