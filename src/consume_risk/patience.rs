//! How long the role waits for an answer of the database. A server that hangs keeps its connections open, so nothing
//! else would end the wait.
//!
//! Guarantees: whoever waited too long gets an error that means a lost connection. What was under way may still be
//! carried out, so the connection must go, and what is remembered with it.

use std::time::Duration;

use crate::{config::Database, repository::RepositoryError};

/// Where the server does not bound its statements.
const PATIENCE_DEFAULT: Duration = Duration::from_secs(20);

/// For one piece of work: a third more than a server that is well takes for its longest statement.
pub(super) fn patience(database: &Database) -> Duration {
    match database.statement_timeout {
        Duration::ZERO => PATIENCE_DEFAULT,
        longest => longest.saturating_mul(4) / 3,
    }
}

/// What `work` answers, if it does in time.
pub(super) async fn answered<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, RepositoryError>>,
) -> Result<T, RepositoryError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(RepositoryError::NoAnswer(limit)))
}
