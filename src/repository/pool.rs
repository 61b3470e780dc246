//! Pooled connections for reads and short writes.
//!
//! The pool must follow a failover. A connection to a primary that became read-only still answers `SELECT 1`, and would
//! return stale rows for ever. So a pooled connection is checked before a use, if it was idle for a second and at least
//! once in 64 uses: its server must accept writes. A caller that finds a lost or read-only connection calls [`evict`],
//! so that all other connections are opened again too.

use std::{sync::Arc, time::Duration};

use deadpool::managed::{Hook, HookError, Metrics};
use diesel::result::ConnectionError;
use diesel_async::{
    AsyncPgConnection,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, PoolError, RecyclingMethod, deadpool as diesel_pool,
    },
};
use futures::FutureExt;

use super::{Connection, RepositoryError, connect, connection::options, server::takes_writes};
use crate::config::Database;

/// A pool of connections.
pub type Pool = diesel_pool::Pool<AsyncPgConnection>;
/// A connection from a [`Pool`]. It returns to the pool when it is dropped.
pub type PooledConnection = diesel_pool::Object<AsyncPgConnection>;

/// A connection that was used more recently is not checked.
const IDLE_UNCHECKED_MAX: Duration = Duration::from_secs(1);
/// A connection that is always in use is checked once in this many uses.
const USES_UNCHECKED_MAX: usize = 64;
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Creates a pool. It opens connections on demand.
pub fn pool(database: &Database, role: &'static str) -> Result<Pool, RepositoryError> {
    options(database, role)?;
    let settings = Arc::new(database.clone());
    let mut manager_config = ManagerConfig::default();
    manager_config.custom_setup = Box::new(move |_| {
        let settings = Arc::clone(&settings);
        async move {
            connect(&settings, role).await.map_err(|error| ConnectionError::BadConnection(error.to_string()))
        }
        .boxed()
    });
    // This checks only for a closed connection or a broken transaction. The hook checks more, but not each time.
    manager_config.recycling_method = RecyclingMethod::Fast;
    let manager = AsyncDieselConnectionManager::new_with_config("", manager_config);
    diesel_pool::Pool::builder(manager)
        .max_size(database.pool_size_max)
        .wait_timeout(Some(database.pool_wait_timeout))
        .create_timeout(Some(database.connect_timeout))
        .recycle_timeout(Some(database.connect_timeout))
        .pre_recycle(Hook::async_fn(|connection, metrics| Box::pin(still_writable(connection, metrics))))
        .runtime(::deadpool::Runtime::Tokio1)
        .build()
        .map_err(|error| RepositoryError::NotConnected(format!("cannot create a pool: {error}")))
}

async fn still_writable(connection: &mut Connection, metrics: &Metrics) -> Result<(), HookError<PoolError>> {
    if metrics.last_used() < IDLE_UNCHECKED_MAX && !metrics.recycle_count.is_multiple_of(USES_UNCHECKED_MAX) {
        return Ok(());
    }
    match tokio::time::timeout(CHECK_TIMEOUT, takes_writes(connection)).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(HookError::message("the server has become read-only")),
        Ok(Err(error)) => Err(HookError::message(error.to_string())),
        Err(_) => Err(HookError::message("the server does not answer")),
    }
}

/// Closes all idle connections. The next ones are opened to the current primary.
pub fn evict(pool: &Pool) {
    let closed = pool.retain(|_, _| false).removed.len();
    tracing::debug!(closed, "closed the idle pooled connections");
}

/// Returns a connection from the pool. Waits at most `database.pool_wait_timeout`.
pub async fn pooled(pool: &Pool) -> Result<PooledConnection, RepositoryError> {
    use ::deadpool::managed::{PoolError as Deadpool, TimeoutType};
    pool.get().await.map_err(|error| match error {
        Deadpool::Timeout(TimeoutType::Wait) => {
            RepositoryError::PoolExhausted(pool.timeouts().wait.unwrap_or_default())
        }
        Deadpool::Backend(PoolError::ConnectionError(ConnectionError::BadConnection(detail))) => {
            // The text of `connect` contains the address.
            let connect = detail.strip_prefix("cannot connect to PostgreSQL at ");
            match connect.and_then(|detail| detail.split_once(": ")) {
                Some((address, detail)) => {
                    RepositoryError::Connect { address: address.into(), detail: detail.into() }
                }
                None => RepositoryError::NotConnected(detail),
            }
        }
        other => RepositoryError::NotConnected(format!("cannot open a database connection: {other}")),
    })
}
