//! Reads of accounts in groups: requests that arrive while queries are running share the next query.
//!
//! ```text
//! HTTP workers ──▶ bounded queue ──▶ one query for all in the queue ──▶ PostgreSQL, on a pooled connection
//!      ▲                                    │
//!      └────────── oneshot for each ────────┘
//! ```
//!
//! The overhead of a query, in the server and in the driver, costs far more than one look-up in the index. There is no
//! timer: a request that finds a query slot free is read at once.
//!
//! Guarantee: an answer is never older than its request, because a query is sent after all its requests arrived.
//!
//! Deliberately absent: a cache of answers.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    pooled_read::read_pooled,
    problem::{Problem, ProblemKind},
};
use crate::{
    domain::AccountId,
    repository::{
        Pool, PooledConnection,
        accounts::{self, Account},
    },
};

/// Queries in parallel. While they run, the next group of requests gathers.
const QUERIES_MAX: usize = 2;
/// The largest number of accounts in one query.
const ACCOUNTS_MAX: usize = 256;

/// A request for one account.
struct LookUp {
    account_id: AccountId,
    reply: oneshot::Sender<Result<Option<Account>, Problem>>,
}

/// Reads accounts. Cheap to clone.
#[derive(Clone)]
pub struct AccountReads {
    queue: mpsc::Sender<LookUp>,
}

impl AccountReads {
    /// Starts the task that reads accounts, on the current runtime. It ends when all clones of the handle are dropped. At
    /// most `queue_size_max` requests wait, and a query may take `limit`.
    pub fn start(pool: Pool, queue_size_max: usize, limit: Duration) -> Self {
        let (queue, waiting) = mpsc::channel(queue_size_max);
        tokio::spawn(run(pool, limit, waiting));
        Self { queue }
    }

    /// Returns the account, or None if it does not exist.
    pub async fn find(&self, account_id: AccountId) -> Result<Option<Account>, Problem> {
        let (reply, answer) = oneshot::channel();
        let unavailable = |detail: &'static str| Problem::new(ProblemKind::Unavailable, detail);
        self.queue.try_send(LookUp { account_id, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                unavailable("the queue of waiting requests is full; retry the request")
            }
            mpsc::error::TrySendError::Closed(_) => {
                unavailable("this instance is stopping; retry the request")
            }
        })?;
        answer.await.unwrap_or_else(|_| Err(unavailable("the database is unavailable; retry the request")))
    }
}

async fn run(pool: Pool, limit: Duration, mut waiting: mpsc::Receiver<LookUp>) {
    let free = Arc::new(Semaphore::new(QUERIES_MAX));
    while let Some(first) = waiting.recv().await {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        // Requests that arrived while all query slots were taken.
        let mut look_ups = vec![first];
        while look_ups.len() < ACCOUNTS_MAX
            && let Ok(look_up) = waiting.try_recv()
        {
            look_ups.push(look_up);
        }
        let pool = pool.clone();
        tokio::spawn(async move {
            answer(&pool, limit, look_ups).await;
            drop(permit);
        });
    }
}

async fn answer(pool: &Pool, limit: Duration, look_ups: Vec<LookUp>) {
    let account_ids: Vec<&str> = look_ups.iter().map(|look_up| look_up.account_id.as_str()).collect();
    let query =
        async |mut connection: PooledConnection| accounts::find_all(&mut connection, &account_ids).await;
    let found = read_pooled(pool, limit, query).await.map_err(Problem::from);
    match found {
        Ok(found) => {
            for (look_up, account) in look_ups.into_iter().zip(found) {
                // The send fails if the client disconnected.
                let _ = look_up.reply.send(Ok(account));
            }
        }
        Err(problem) => {
            for look_up in look_ups {
                let _ = look_up.reply.send(Err(problem.clone()));
            }
        }
    }
}
