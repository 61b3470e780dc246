//! What every handler works with: the writers, the readers and the limits.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;

use super::{
    account_reads::AccountReads,
    problem::{Problem, ProblemKind},
    writer::{Undecided, Writers},
};
use crate::{
    config::Config,
    domain::{AccountId, Decision},
    posting::Request,
    repository::{self, Pool, PooledConnection, RepositoryError, accounts::Account},
    runtime::Context,
};

/// Shared by all HTTP workers. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    writers: Writers,
    accounts: AccountReads,
    pool: Pool,
    /// Connections belong to this runtime; the HTTP workers have runtimes of their own that must not own any.
    runtime: Handle,
    /// The whole configuration.
    pub config: Arc<Config>,
    /// Whether spans of requests go anywhere.
    pub exports_traces: bool,
}

impl ApiState {
    /// Puts the parts together; call it on the runtime that owns the connections.
    pub fn new(context: &Context, writers: Writers, pool: Pool) -> Self {
        let serve = &context.config.serve;
        let accounts = AccountReads::start(pool.clone(), serve.queue_size_max, serve.request_timeout);
        Self {
            writers,
            accounts,
            pool,
            runtime: Handle::current(),
            config: Arc::clone(&context.config),
            exports_traces: context.exports_traces,
        }
    }

    /// Posts one request; refusals of every kind come back as problems.
    pub async fn post(&self, request: Request) -> Result<Decision, Problem> {
        self.within_time(self.writers.post(request)).await?.map_err(Problem::from)
    }

    /// Posts many requests, each for itself, in order per account.
    pub async fn post_many(&self, requests: Vec<Request>) -> Result<Vec<Result<Decision, Problem>>, Problem> {
        let outcomes = self.within_time(self.writers.post_many(requests)).await?;
        Ok(outcomes.into_iter().map(|outcome| outcome.map_err(Problem::from)).collect())
    }

    /// An account, or None if nobody opened it.
    pub async fn account(&self, account_id: AccountId) -> Result<Option<Account>, Problem> {
        self.within_time(self.accounts.find(account_id)).await?
    }

    /// Reads with a pooled connection.
    pub async fn read<T, F, Done>(&self, work: F) -> Result<T, Problem>
    where
        F: FnOnce(PooledConnection) -> Done + Send + 'static,
        Done: Future<Output = Result<T, RepositoryError>> + Send,
        T: Send + 'static,
    {
        let pool = self.pool.clone();
        let limit = self.config.serve.request_timeout;
        let reading = self.runtime.spawn(async move { read_pooled(&pool, limit, work).await });
        match self.within_time(reading).await? {
            Ok(outcome) => Ok(outcome?),
            Err(error) => {
                tracing::error!(%error, "a read did not end");
                Err(Problem::new(ProblemKind::Internal, "this is a bug; the server's log tells more"))
            }
        }
    }

    async fn within_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Problem> {
        let limit: Duration = self.config.serve.request_timeout;
        tokio::time::timeout(limit, work).await.map_err(|_| {
            Problem::new(
                ProblemKind::Unavailable,
                format!("no answer within {limit:?}; try again with the same key"),
            )
        })
    }
}

/// Works with a pooled connection for at most `limit`.
pub async fn read_pooled<T, F, Done>(pool: &Pool, limit: Duration, work: F) -> Result<T, RepositoryError>
where
    F: FnOnce(PooledConnection) -> Done,
    Done: Future<Output = Result<T, RepositoryError>>,
{
    let outcome = tokio::time::timeout(limit, async { work(repository::pooled(pool).await?).await });
    let outcome = outcome.await.unwrap_or(Err(RepositoryError::NoAnswer(limit)));
    // It went back to the pool, and its neighbours were opened to the same server.
    if outcome.as_ref().is_err_and(RepositoryError::is_connection_lost) {
        repository::evict(pool);
    }
    outcome
}

impl From<Undecided> for Problem {
    fn from(why: Undecided) -> Self {
        match why {
            Undecided::QueueFull => Self::new(
                ProblemKind::Unavailable,
                "too many requests are waiting; try again with the same key",
            ),
            Undecided::Stopping => {
                Self::new(ProblemKind::Unavailable, "this instance is stopping; try again with the same key")
            }
            Undecided::Unavailable => Self::new(
                ProblemKind::Unavailable,
                "the database does not answer; the outcome is unknown, so try again with the same key",
            ),
            Undecided::Failed => {
                Self::new(ProblemKind::Internal, "this is a bug; the server's log tells more")
            }
        }
    }
}
