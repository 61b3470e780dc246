//! The only way to run a database transaction: it has a name, retries conflicts a bounded number of times, and counts the
//! retries.

use std::time::Duration;

use diesel_async::{AnsiTransactionManager, TransactionManager};

use super::{Connection, RepositoryError};

const RETRIES_MAX: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// The body of a database transaction: an async closure over the connection that may run more than once. It is a trait,
/// because a bound on `AsyncFn` cannot require that the future is `Send`.
pub trait Work<'c, T>: Fn(&'c mut Connection) -> <Self as Work<'c, T>>::Done {
    /// The future of the body.
    type Done: Future<Output = Result<T, RepositoryError>> + Send;
}

impl<'c, T, F, Done> Work<'c, T> for F
where
    F: Fn(&'c mut Connection) -> Done,
    Done: Future<Output = Result<T, RepositoryError>> + Send,
{
    type Done = Done;
}

/// The isolation level of a database transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees the transactions that committed before it.
    ReadCommitted,
    /// All statements see one snapshot.
    RepeatableRead,
}

impl Isolation {
    /// Returns the statement that begins a database transaction. It names the level, whatever the default is.
    fn begin(self) -> &'static str {
        match self {
            Self::ReadCommitted => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Self::RepeatableRead => "BEGIN ISOLATION LEVEL REPEATABLE READ",
        }
    }
}

/// Runs `work` in a database transaction with READ COMMITTED. See [`transaction_with`].
pub async fn transaction<T, F>(
    name: &'static str,
    connection: &mut Connection,
    work: F,
) -> Result<T, RepositoryError>
where
    F: for<'c> Work<'c, T> + Send + Sync,
    T: Send,
{
    transaction_with(Isolation::ReadCommitted, name, connection, work).await
}

/// Runs `work` in a database transaction. Commits if it returns `Ok`, and rolls back otherwise. After a serialization
/// failure or a deadlock it runs again, at most three times. Any other error is returned to the caller.
pub async fn transaction_with<T, F>(
    isolation: Isolation,
    name: &'static str,
    connection: &mut Connection,
    work: F,
) -> Result<T, RepositoryError>
where
    F: for<'c> Work<'c, T> + Send + Sync,
    T: Send,
{
    let mut retries = 0;
    loop {
        let outcome = attempt(isolation, connection, &work).await;
        match outcome {
            Err(error) if error.is_conflict() && retries < RETRIES_MAX => {
                retries += 1;
                metrics::counter!("ledger_transaction_retries_total", "transaction" => name).increment(1);
                tracing::debug!(transaction = name, retries, %error, "conflict; retrying the database transaction");
                tokio::time::sleep(RETRY_PAUSE * retries).await;
            }
            Err(error) => {
                tracing::debug!(transaction = name, %error, "rolled back a database transaction");
                return Err(error);
            }
            Ok(value) => return Ok(value),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the wrapper that the ban points to")]
async fn attempt<T, F>(
    isolation: Isolation,
    connection: &mut Connection,
    work: &F,
) -> Result<T, RepositoryError>
where
    F: for<'c> Work<'c, T> + Send + Sync,
    T: Send,
{
    AnsiTransactionManager::begin_transaction_sql(&mut *connection, isolation.begin()).await?;
    match work(&mut *connection).await {
        Ok(value) => {
            AnsiTransactionManager::commit_transaction(connection).await?;
            Ok(value)
        }
        Err(error) => {
            roll_back(connection).await;
            Err(error)
        }
    }
}

/// Rolls back. If that fails, the connection is marked as broken and the pool drops it; the caller gets the first error.
#[expect(clippy::disallowed_methods, reason = "this is the wrapper that the ban points to")]
async fn roll_back(connection: &mut Connection) {
    if let Err(error) = AnsiTransactionManager::rollback_transaction(connection).await {
        tracing::debug!(%error, "the rollback failed too");
    }
}
