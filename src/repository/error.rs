//! Errors of the database, grouped by the possible reaction of the caller.
//!
//! Errors of the server are recognised by their SQLSTATE alone (see [`super::sqlstate`]); messages are for people.

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::sqlstate;
use crate::domain::Decision;

/// Raised by `ledger_stale_group()`; see the first migration.
const STALE_GROUP: &str = "LG001";
/// Raised by `ledger_clock_differs()`; see its migration.
const CLOCK_DIFFERS: &str = "LG003";

/// Codes after which the connection can no longer be used: connection exceptions, a read-only server, a session that
/// the server ended for its idleness, a server that starts or stops, and prepared statements that no longer fit because
/// the session lost them (26) or the schema has changed (0A).
const LOST_CONNECTIONS: [&str; 7] = ["08", "0A", "25006", "25P03", "25P04", "26", "57P"];

/// Classes of errors that lie in the request, or in a bug of ours, so that retrying does not help: invalid data (22),
/// constraints (23), syntax and types (42), and exceptions raised by our own functions (LG) or by triggers of others (P0).
/// [`CLOCK_DIFFERS`] is the exception.
///
/// Program limits (54) are not among them: the texts that are indexed have limits of their own, so no request exceeds one.
/// PostgreSQL also reports with 54000 that it stops assigning transaction ids, to protect itself from wraparound.
const REQUEST_FAULTS: [&str; 5] = ["22", "23", "42", "LG", "P0"];

/// Codes after which PostgreSQL has written nothing: conflicts, syntax, rights and missing tables (42),
/// program limits and protection from wraparound (54), objects in use (55), and a server that accepts no writes (25006) or
/// no connections (53300, 57P03).
const NOT_WRITTEN: [&str; 8] = ["40001", "40P01", "42", "54", "55", "25006", "53300", "57P03"];

/// Codes of class 42 that an operator causes and ends: a right that was revoked, a policy that hides rows, and tables,
/// columns, functions or other objects that are gone, for example while a restore runs.
const CHANGED_DATABASE: [&str; 5] = ["42501", "42P01", "42703", "42883", "42704"];

/// A prepared statement that is gone, that exists before it was prepared, or that has other parameters: the session is
/// shared with another client.
const LOST_STATEMENTS: [&str; 3] = ["26000", "42P05", "08P01"];

/// The primary key of the outbox, whose ids come from a sequence.
const OUTBOX_KEY: &str = "outbox_pkey";

/// An error of this layer.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// Connecting failed: refused, timed out, wrong credentials, TLS. The text says which, and where.
    #[error("cannot connect to PostgreSQL at {address}: {detail}")]
    Connect {
        /// Host and port, never the password.
        address: String,
        /// The message of the driver or the server.
        detail: String,
    },
    /// No attempt to connect was made, or it failed for a reason of this process. The text is whole: a wrong
    /// `database.url`, for example.
    #[error("{0}")]
    NotConnected(String),
    /// All pooled connections are in use.
    #[error("no free database connection within {0:?}")]
    PoolExhausted(std::time::Duration),
    /// The server did not answer in time and may still be working. The result is unknown, and the connection must be closed.
    #[error("no answer from PostgreSQL within {0:?}")]
    NoAnswer(std::time::Duration),
    /// The epoch of the lease has changed: another process owns it. Roll back and stop.
    #[error("the lease {0} was lost")]
    LeaseLost(String),
    /// The position of a consumer differs from the expected one. Roll back and read it again.
    #[error("the position of {0} has changed")]
    PositionMoved(String),
    /// `ledger broker switch` ran since the command began. Nothing was written.
    #[error("the broker was switched meanwhile; run the command again")]
    BrokerSwitched,
    /// The outbox does not hold exactly the rows to remove. Roll back and remove them one by one.
    #[error("the outbox holds {found} rows instead of the {expected} rows to remove")]
    OutboxDiffers {
        /// Rows to be removed.
        expected: usize,
        /// Rows found there.
        found: usize,
    },
    /// A request of a group was refused, and the group must be posted as a whole. Nothing was written.
    #[error("request {position} of the group was refused")]
    GroupRefused {
        /// The index of the request in the group.
        position: usize,
        /// Why.
        decision: Box<Decision>,
    },
    /// A dry run lost its session, and with it the effect of its earlier groups.
    #[error("the connection was lost, and with it the state of the dry run; run it again")]
    DryRunLost,
    /// The schema is older or newer than this binary.
    #[error("the database schema is at version {found}, but this binary needs {wanted}; {advice}")]
    SchemaMismatch {
        /// The newest applied migration, or `none`.
        found: String,
        /// The newest migration in this binary.
        wanted: String,
        /// The remedy.
        advice: &'static str,
    },
    /// A sequence is behind the highest id of its table.
    #[error(
        "the sequence {sequence} is at {last_id}, but its table has the id {highest_id}: a logical replica or a partial \
         restore does not copy sequences, and new rows would get ids that are taken or too low; run `ledger migrate`, which \
         moves the sequence"
    )]
    SequenceBehind {
        /// The name of the sequence.
        sequence: String,
        /// The last id that it drew.
        last_id: i64,
        /// The highest id of the table.
        highest_id: i64,
    },
    /// Rights cannot be granted. The text names the role and the remedy.
    #[error("{0}")]
    Grants(String),
    /// The server or the database cannot hold a ledger. The text names the property and the remedy.
    #[error("{0}")]
    UnsuitableServer(String),
    /// A pooler is in front of PostgreSQL and shares its sessions (see [`super::pooler`]).
    #[error(
        "a connection pooler gives each database transaction another session of PostgreSQL, and ledger needs sessions of its \
         own: set pool_mode = session for this database, with the default server_reset_query, or name PostgreSQL itself \
         in database.url"
    )]
    SharedSession,
    /// A migration failed.
    #[error("a migration failed: {0}")]
    Migration(String),
    /// A row holds a value that the domain does not know: the database was changed by hand.
    #[error("the database holds an invalid {what}: {detail}")]
    Corrupt {
        /// The kind of value.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// An error of PostgreSQL or of the driver.
    #[error("database error: {0}")]
    Database(#[from] DieselError),
}

impl RepositoryError {
    /// Returns the SQLSTATE, if the server reported the error.
    fn sqlstate(&self) -> Option<&str> {
        let Self::Database(DieselError::DatabaseError(_, information)) = self else { return None };
        sqlstate::split(information.message()).map(|(code, _)| code)
    }

    /// Returns whether the same database transaction can simply run again: after a serialization failure or a deadlock.
    pub fn is_conflict(&self) -> bool {
        matches!(self.sqlstate(), Some("40001" | "40P01"))
    }

    /// Returns whether the server ended the statement after `statement_timeout`, or because it was cancelled.
    pub(super) fn is_statement_timeout(&self) -> bool {
        self.sqlstate() == Some("57014")
    }

    /// Returns whether the expected path was wrong about the group: an account differs from its expected state, or a
    /// key exists.
    pub fn is_stale_group(&self) -> bool {
        matches!(self.sqlstate(), Some(STALE_GROUP | "23505"))
    }

    /// Returns whether the moment of a group's decisions differs from the clock of the server. A new reading of that clock
    /// helps.
    pub fn is_clock_difference(&self) -> bool {
        self.sqlstate() == Some(CLOCK_DIFFERS)
    }

    /// Replaces an error that, at the start of a session, only a pooler causes that shares sessions.
    pub(super) fn at_session_start(self) -> Self {
        match self.sqlstate() {
            Some(code) if LOST_STATEMENTS.contains(&code) => Self::SharedSession,
            _ => self,
        }
    }

    /// Returns whether the error is certain to have left nothing in the database: no statement was sent, or the server
    /// refused one for a reason that no commit has. A full disk, an I/O error and a stop of the server may come during the
    /// commit.
    pub fn wrote_nothing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::NotConnected(_) | Self::PoolExhausted(_) => true,
            other => {
                other.sqlstate().is_some_and(|code| NOT_WRITTEN.iter().any(|prefix| code.starts_with(prefix)))
            }
        }
    }

    /// Returns whether the connection can no longer be used: it is broken, or the server starts, stops or accepts no
    /// writes.
    pub fn is_connection_lost(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::NotConnected(_) | Self::NoAnswer(_) => true,
            Self::Database(DieselError::BrokenTransactionManager) => true,
            Self::Database(DieselError::DatabaseError(kind, _)) => match self.sqlstate() {
                None => {
                    matches!(
                        kind,
                        DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection
                    )
                }
                Some(code) => LOST_CONNECTIONS.iter().any(|prefix| code.starts_with(prefix)),
            },
            _ => false,
        }
    }

    /// Returns whether a retry of the same request may succeed. This holds for every error of the database that is not
    /// known to lie in the request. An id of the outbox that is taken does not: its sequence is behind.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::PoolExhausted(_) => true,
            Self::Database(DieselError::DatabaseError(_, information)) => {
                let code = self.sqlstate().unwrap_or_default();
                CHANGED_DATABASE.contains(&code)
                    || code == CLOCK_DIFFERS
                    || information.constraint_name() == Some(OUTBOX_KEY)
                    || !REQUEST_FAULTS.iter().any(|class| code.starts_with(class))
            }
            other => other.is_connection_lost(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(code: &str) -> RepositoryError {
        let message = Box::new(format!("{code}: eine Meldung"));
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, message).into()
    }

    #[test]
    fn errors_are_recognised_by_their_sqlstate() {
        for (code, conflict, lost, transient) in [
            ("40001", true, false, true),
            ("40P01", true, false, true),
            ("57P01", false, true, true),
            ("57P03", false, true, true),
            ("25006", false, true, true),
            ("25P03", false, true, true),
            ("08006", false, true, true),
            ("57014", false, false, true),
            ("55P03", false, false, true),
            ("53100", false, false, true),
            ("XX000", false, false, true),
            ("22003", false, false, false),
            ("23514", false, false, false),
            ("42601", false, false, false),
            ("42501", false, false, true),
            ("42P01", false, false, true),
            ("54000", false, false, true),
            ("54001", false, false, true),
            ("53300", false, false, true),
            ("58030", false, false, true),
            ("26000", false, true, true),
            ("0A000", false, true, true),
            ("P0001", false, false, false),
            ("LG002", false, false, false),
            ("LG003", false, false, true),
        ] {
            let error = reported(code);
            let found = (error.is_conflict(), error.is_connection_lost(), error.is_transient());
            assert_eq!(found, (conflict, lost, transient), "{code}");
        }
    }

    #[test]
    fn what_a_commit_can_report_may_have_been_written() {
        for code in ["40001", "42501", "42P01", "54000", "55P03", "25006", "57P03"] {
            assert!(reported(code).wrote_nothing(), "{code}");
        }
        for code in ["53100", "58030", "57P01", "57014", "08006", "XX000", "40003"] {
            assert!(!reported(code).wrote_nothing(), "{code}");
        }
        assert!(!RepositoryError::NoAnswer(std::time::Duration::ZERO).wrote_nothing());
    }

    #[test]
    fn an_error_of_the_driver_has_no_sqlstate() {
        let message = Box::new("connection closed".to_owned());
        let error: RepositoryError =
            DieselError::DatabaseError(DatabaseErrorKind::UnableToSendCommand, message).into();
        assert!(error.is_connection_lost() && error.is_transient() && !error.is_conflict());
    }
}
