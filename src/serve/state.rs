//! The state that all handlers share: the writers, the readers and the configuration.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;

use super::{
    account_reads::AccountReads,
    pooled_read::read_pooled,
    problem::{INTERNAL_DETAIL, Problem, ProblemKind},
    writer::{Undecided, Writers},
};
use crate::{
    config::Config,
    domain::{AccountId, Decision},
    posting::Request,
    repository::{Pool, PooledConnection, RepositoryError, accounts::Account},
    runtime::{Context, DatabaseClock, http_server::HostCheck},
};

/// Shared by all HTTP workers. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    writers: Writers,
    accounts: AccountReads,
    pool: Pool,
    /// The runtime that owns the database connections. The HTTP workers have runtimes of their own, which must not own
    /// a database connection.
    runtime: Handle,
    /// The whole configuration.
    pub config: Arc<Config>,
    /// The database's clock.
    pub clock: DatabaseClock,
    /// The names that the API answers to.
    pub hosts: HostCheck,
    /// Whether spans of requests are exported.
    pub exports_traces: bool,
}

impl ApiState {
    /// Creates the state. Call it on the runtime that owns the database connections.
    pub fn new(context: &Context, writers: Writers, pool: Pool) -> Self {
        let serve = &context.config.serve;
        let accounts = AccountReads::start(pool.clone(), serve.queue_size_max, serve.request_timeout);
        Self {
            writers,
            accounts,
            pool,
            runtime: Handle::current(),
            config: Arc::clone(&context.config),
            clock: context.clock.clone(),
            hosts: HostCheck::new(serve.listen, "serve.allowed_hosts", &serve.allowed_hosts),
            exports_traces: context.exports_traces,
        }
    }

    /// Posts one request. Returns the decision, or a problem if there is none.
    pub async fn post(&self, request: Request) -> Result<Decision, Problem> {
        self.within_time(self.writers.post(request)).await?.map_err(Problem::from)
    }

    /// Posts many requests, each independently, in order within each account.
    pub async fn post_many(&self, requests: Vec<Request>) -> Result<Vec<Result<Decision, Problem>>, Problem> {
        let outcomes = self.within_time(self.writers.post_many(requests)).await?;
        Ok(outcomes.into_iter().map(|outcome| outcome.map_err(Problem::from)).collect())
    }

    /// Returns an account, or None if it does not exist.
    pub async fn account(&self, account_id: AccountId) -> Result<Option<Account>, Problem> {
        self.within_time(self.accounts.find(account_id)).await?
    }

    /// Runs `work` with a pooled connection, on the runtime that owns it.
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
                tracing::error!(%error, "a read of the database panicked");
                Err(Problem::new(ProblemKind::Internal, INTERNAL_DETAIL))
            }
        }
    }

    async fn within_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Problem> {
        let limit: Duration = self.config.serve.request_timeout;
        tokio::time::timeout(limit, work).await.map_err(|_| {
            Problem::new(
                ProblemKind::Unavailable,
                format!(
                    "the request was not answered within {limit:?}; retry it with the same idempotency key"
                ),
            )
        })
    }
}

impl From<Undecided> for Problem {
    fn from(why: Undecided) -> Self {
        match why {
            Undecided::QueueFull => Self::new(
                ProblemKind::Unavailable,
                "the queue of waiting requests is full; retry with the same idempotency key",
            ),
            Undecided::Stopping => Self::new(
                ProblemKind::Unavailable,
                "this instance is stopping; retry with the same idempotency key",
            ),
            Undecided::Unavailable => Self::new(
                ProblemKind::Unavailable,
                "the database does not answer and the outcome is unknown; retry with the same idempotency key",
            ),
            Undecided::NotPosted => Self::new(
                ProblemKind::Unavailable,
                "the database takes no transactions now, and nothing was written; retry with the same idempotency key",
            ),
            Undecided::Failed => Self::new(ProblemKind::Internal, INTERNAL_DETAIL),
        }
    }
}
