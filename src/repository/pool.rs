//! Pooled connections for readers and for short writes.
//!
//! A pool must not outlive a failover: a connection that stays open to a primary which became read-only answers every
//! `SELECT 1` and would serve stale rows for ever. So a connection is looked at before it is given out, whenever it
//! has rested for a moment and every so many uses: it must still be able to write. Whoever meets a lost or read-only
//! connection calls [`evict`], which has all others opened anew as well.

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
/// A connection out of a [`Pool`]; goes back when dropped.
pub type PooledConnection = diesel_pool::Object<AsyncPgConnection>;

/// A connection that was out a moment ago is given out as it is.
const RESTED: Duration = Duration::from_secs(1);
/// One that is always in use is looked at once in so many uses.
const USES_UNCHECKED_MAX: usize = 64;
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes a pool. No connection is opened before the first is asked for.
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
    // Only whether it is closed or inside a broken transaction; the hook asks for more, but not each time.
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
        .map_err(|error| RepositoryError::Connect { address: "database".into(), detail: error.to_string() })
}

async fn still_writable(connection: &mut Connection, metrics: &Metrics) -> Result<(), HookError<PoolError>> {
    if metrics.last_used() < RESTED && !metrics.recycle_count.is_multiple_of(USES_UNCHECKED_MAX) {
        return Ok(());
    }
    match tokio::time::timeout(CHECK_TIMEOUT, takes_writes(connection)).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(HookError::message("the server has become read-only")),
        Ok(Err(error)) => Err(HookError::message(error.to_string())),
        Err(_) => Err(HookError::message("the server does not answer")),
    }
}

/// Closes all connections that nobody uses: the next ones are opened anew, wherever the primary is then.
pub fn evict(pool: &Pool) {
    let closed = pool.retain(|_, _| false).removed.len();
    tracing::debug!(closed, "closed the pooled connections");
}

/// Takes a connection out of the pool, waiting at most `database.pool_wait_timeout`.
pub async fn pooled(pool: &Pool) -> Result<PooledConnection, RepositoryError> {
    use ::deadpool::managed::{PoolError as Deadpool, TimeoutType};
    pool.get().await.map_err(|error| match error {
        Deadpool::Timeout(TimeoutType::Wait) => {
            RepositoryError::PoolExhausted(pool.timeouts().wait.unwrap_or_default())
        }
        Deadpool::Backend(PoolError::ConnectionError(ConnectionError::BadConnection(detail))) => {
            // `connect` has put the address into the text already.
            let detail =
                detail.strip_prefix("cannot connect to PostgreSQL at ").unwrap_or(&detail).to_owned();
            match detail.split_once(": ") {
                Some((address, detail)) => {
                    RepositoryError::Connect { address: address.into(), detail: detail.into() }
                }
                None => RepositoryError::Connect { address: "database".into(), detail },
            }
        }
        other => RepositoryError::Connect { address: "database".into(), detail: other.to_string() },
    })
}
