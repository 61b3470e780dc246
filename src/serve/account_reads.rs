//! Group reads: whoever asks for an account while a question is under way is asked for together in the next one.
//!
//! ```text
//! HTTP workers ──▶ bounded queue ──▶ one query for all that wait ──▶ PostgreSQL, on a pooled connection
//!      ▲                                    │
//!      └──────────── oneshot, one each ─────┘
//! ```
//!
//! One query for each balance costs the server and the driver far more than the probe of the index itself. An answer
//! is never older than its request, because a query is sent only after all that it asks for were. No timer: a request
//! that finds nothing under way is asked for at once. Deliberately absent: remembering answers.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    problem::{Problem, ProblemKind},
    state::read_pooled,
};
use crate::{
    domain::AccountId,
    repository::{
        Pool, PooledConnection,
        accounts::{self, Account},
    },
};

/// Queries under way at once: while PostgreSQL answers one, the next gathers.
const QUERIES_MAX: usize = 2;
/// Accounts in one query.
const ACCOUNTS_MAX: usize = 256;

struct Job {
    account_id: AccountId,
    reply: oneshot::Sender<Result<Option<Account>, Problem>>,
}

/// Asks for accounts. Cheap to clone.
#[derive(Clone)]
pub struct AccountReads {
    queue: mpsc::Sender<Job>,
}

impl AccountReads {
    /// Starts asking on the current runtime; it ends when all clones of the handle are gone. At most `queue_size_max`
    /// requests wait, and a query may take `limit`.
    pub fn start(pool: Pool, queue_size_max: usize, limit: Duration) -> Self {
        let (queue, waiting) = mpsc::channel(queue_size_max);
        tokio::spawn(ask(pool, limit, waiting));
        Self { queue }
    }

    /// The account, or None if nobody opened it.
    pub async fn find(&self, account_id: AccountId) -> Result<Option<Account>, Problem> {
        let (reply, answer) = oneshot::channel();
        let unavailable = |detail: &'static str| Problem::new(ProblemKind::Unavailable, detail);
        self.queue.try_send(Job { account_id, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => unavailable("too many requests are waiting; try again"),
            mpsc::error::TrySendError::Closed(_) => unavailable("this instance is stopping; try again"),
        })?;
        answer.await.unwrap_or_else(|_| Err(unavailable("the database does not answer; try again")))
    }
}

async fn ask(pool: Pool, limit: Duration, mut waiting: mpsc::Receiver<Job>) {
    let free = Arc::new(Semaphore::new(QUERIES_MAX));
    while let Some(first) = waiting.recv().await {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        // Those that came while all queries were under way.
        let mut jobs = vec![first];
        while jobs.len() < ACCOUNTS_MAX
            && let Ok(job) = waiting.try_recv()
        {
            jobs.push(job);
        }
        let pool = pool.clone();
        tokio::spawn(async move {
            answer(&pool, limit, jobs).await;
            drop(permit);
        });
    }
}

async fn answer(pool: &Pool, limit: Duration, jobs: Vec<Job>) {
    let account_ids: Vec<&str> = jobs.iter().map(|job| job.account_id.as_str()).collect();
    let query =
        async |mut connection: PooledConnection| accounts::find_all(&mut connection, &account_ids).await;
    let found = read_pooled(pool, limit, query).await.map_err(Problem::from);
    match found {
        Ok(found) => {
            for (job, account) in jobs.into_iter().zip(found) {
                // Whoever is gone does not want to know any more.
                let _ = job.reply.send(Ok(account));
            }
        }
        Err(problem) => {
            for job in jobs {
                let _ = job.reply.send(Err(problem.clone()));
            }
        }
    }
}
