//! Reads of the database with a pooled connection and a time limit.

use std::time::Duration;

use crate::repository::{self, Pool, PooledConnection, RepositoryError};

/// Runs `work` with a pooled connection for at most `limit`.
pub async fn read_pooled<T, F, Done>(pool: &Pool, limit: Duration, work: F) -> Result<T, RepositoryError>
where
    F: FnOnce(PooledConnection) -> Done,
    Done: Future<Output = Result<T, RepositoryError>>,
{
    let outcome = tokio::time::timeout(limit, async { work(repository::pooled(pool).await?).await });
    let outcome = outcome.await.unwrap_or(Err(RepositoryError::NoAnswer(limit)));
    // The lost connection is back in the pool, and the others in the pool lead to the same server.
    if outcome.as_ref().is_err_and(RepositoryError::is_connection_lost) {
        repository::evict(pool);
    }
    outcome
}
