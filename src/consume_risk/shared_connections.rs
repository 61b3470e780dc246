//! The database connections that the partitions of one process share.
//!
//! A partition takes a connection for one step of work and gives it back, so a partition without new records holds none.
//!
//! Guarantees:
//! - At most `database.pool_size_max` connections are open, however many partitions there are.
//! - If the server refuses another connection, the partitions share the open ones, in the order of their requests.
//! - A connection that is not given back is closed, because its state is unknown after a failure.
//!
//! A task that waits for a connection must not hold another one: then some task always makes progress.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};

use super::answer_timeout::{answer_timeout, answered_within};
use crate::{
    config::Database,
    repository::{self, Connection, RepositoryError},
    runtime::{OutageLog, Outages},
};

/// How long the process waits before it opens another connection in place of a refused one.
const REFUSED_WAIT: Duration = Duration::from_secs(5);

/// The open connections, and the permission to open more.
pub(super) struct SharedConnections {
    database: Database,
    /// A permit for each connection that is open and idle, or may be opened.
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<OpenConnection>>,
    /// Cloned into each open connection, which counts them.
    open: Arc<()>,
    refusals: Mutex<OutageLog>,
}

struct OpenConnection {
    connection: Connection,
    _counted: Arc<()>,
}

/// A connection that one task uses.
pub(super) struct LentConnection {
    open: OpenConnection,
    permit: OwnedSemaphorePermit,
    owner: Arc<SharedConnections>,
}

impl SharedConnections {
    /// Opens no connection yet.
    pub fn new(database: &Database, outages: &Outages) -> Arc<Self> {
        Arc::new(Self {
            database: database.clone(),
            permits: Arc::new(Semaphore::new(database.pool_size_max)),
            idle: Mutex::default(),
            open: Arc::default(),
            refusals: Mutex::new(outages.log_of("opening another database connection")),
        })
    }

    /// Returns an idle connection, or a new one that can write. Waits at most `database.pool_wait_timeout` for a
    /// connection of another task.
    pub async fn take(self: &Arc<Self>) -> Result<LentConnection, RepositoryError> {
        let wait_max = self.database.pool_wait_timeout;
        let deadline = Instant::now() + wait_max;
        let mut refusal = RepositoryError::PoolExhausted(wait_max);
        loop {
            let permit = timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await;
            let Ok(Ok(permit)) = permit else { return Err(refusal) };
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let opened = match idle {
                Some(open) => Ok(open),
                None => self.open().await,
            };
            match opened {
                Ok(open) => return Ok(LentConnection { open, permit, owner: Arc::clone(self) }),
                Err(error) if Arc::strong_count(&self.open) == 1 => return Err(error),
                Err(error) => {
                    self.refusals.lock().unwrap_or_else(PoisonError::into_inner).failed(&error);
                    tokio::spawn(withhold(permit));
                    refusal = error;
                }
            }
        }
    }

    /// Closes the idle connections after a failure of the database. New ones are opened to the current primary.
    pub fn close_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn open(&self) -> Result<OpenConnection, RepositoryError> {
        let mut connection = repository::connect(&self.database, "consume-risk").await?;
        let preparing = repository::prepare_writer(&mut connection);
        answered_within(answer_timeout(&self.database), preparing).await?;
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).succeeded();
        Ok(OpenConnection { connection, _counted: Arc::clone(&self.open) })
    }
}

async fn withhold(permit: OwnedSemaphorePermit) {
    sleep(REFUSED_WAIT).await;
    drop(permit);
}

impl LentConnection {
    /// Returns the connection.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.open.connection
    }

    /// Gives the connection back after its work has succeeded.
    pub fn give_back(self) {
        let Self { open, permit, owner } = self;
        owner.idle.lock().unwrap_or_else(PoisonError::into_inner).push(open);
        drop(permit);
    }
}
