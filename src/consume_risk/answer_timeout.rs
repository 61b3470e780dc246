//! How long the role waits for an answer of the database. A server that hangs keeps its connections open, so nothing
//! else would end the wait.
//!
//! Guarantees: a wait that is too long fails with [`RepositoryError::NoAnswer`]. The server may still carry out the
//! statement, so the caller must drop the connection and everything in memory that depends on its outcome.

use std::time::Duration;

use crate::{config::Database, repository::RepositoryError};

/// The limit where the server does not bound its statements.
const ANSWER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(20);

/// Returns the limit for one piece of work: a third more than a healthy server takes for its longest statement.
pub(super) fn answer_timeout(database: &Database) -> Duration {
    match database.statement_timeout {
        Duration::ZERO => ANSWER_TIMEOUT_DEFAULT,
        longest => longest.saturating_mul(4) / 3,
    }
}

/// Returns the result of `work`, or `NoAnswer` after `limit`.
pub(super) async fn answered_within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, RepositoryError>>,
) -> Result<T, RepositoryError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(RepositoryError::NoAnswer(limit)))
}
