//! The one way to run a transaction: named, retried a bounded number of times on conflicts, counted.

use std::time::Duration;

use diesel_async::{AnsiTransactionManager, RunQueryDsl, TransactionManager};

use super::{Connection, RepositoryError};

const RETRIES_MAX: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// What a transaction's body is: an async closure over the connection that may be run again. A trait of its own,
/// because a bound on `AsyncFn` alone leaves the future without `Send`.
pub trait Work<'c, T>: Fn(&'c mut Connection) -> <Self as Work<'c, T>>::Done {
    /// The body's future.
    type Done: Future<Output = Result<T, RepositoryError>> + Send;
}

impl<'c, T, F, Done> Work<'c, T> for F
where
    F: Fn(&'c mut Connection) -> Done,
    Done: Future<Output = Result<T, RepositoryError>> + Send,
{
    type Done = Done;
}

/// How much a transaction sees of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it.
    ReadCommitted,
    /// All statements see one snapshot.
    RepeatableRead,
}

/// Runs `work` in a READ COMMITTED transaction. See [`transaction_with`].
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

/// Runs `work` in a transaction and commits if it answers `Ok`; rolls back otherwise. A serialisation failure or a
/// deadlock runs it again, at most three times. Any other error is the caller's.
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
                tracing::debug!(transaction = name, retries, %error, "conflict, running the transaction again");
                tokio::time::sleep(RETRY_PAUSE * retries).await;
            }
            Err(error) => {
                tracing::debug!(transaction = name, %error, "transaction rolled back");
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
    AnsiTransactionManager::begin_transaction(&mut *connection).await?;
    if isolation == Isolation::RepeatableRead {
        let level = diesel::sql_query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
        if let Err(error) = level.execute(&mut *connection).await {
            roll_back(connection).await;
            return Err(error.into());
        }
    }
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

/// A rollback that fails leaves the connection marked as broken; the pool drops it. The first error is the one told.
#[expect(clippy::disallowed_methods, reason = "this is the wrapper that the ban points to")]
async fn roll_back(connection: &mut Connection) {
    if let Err(error) = AnsiTransactionManager::rollback_transaction(connection).await {
        tracing::debug!(%error, "the rollback failed too");
    }
}
