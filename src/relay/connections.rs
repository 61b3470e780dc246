//! The relay's connections, prepared for its statements: one reads while others remove. A connection is opened on demand,
//! reused, and dropped after any error.
//!
//! A primary that became read-only still answers scans, but never with new rows. So each connection is checked from time
//! to time: its server must accept writes. When a connection to another server is opened, the idle ones to the old
//! server are dropped.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use crate::{
    config::Database,
    repository::{self, Connection, RepositoryError, outbox},
};

/// A connection whose last check is older than this is checked before it is used.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The idle connections.
pub(super) struct Connections {
    database: Database,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<RelayConnection>,
    /// The server of the latest connection.
    server_started_at: Option<DateTime<Utc>>,
}

/// A connection. It must be returned only after its last statement succeeded.
pub(super) struct RelayConnection {
    pub(super) connection: Connection,
    /// Identifies the server.
    server_started_at: DateTime<Utc>,
    checked_at: Instant,
}

impl Connections {
    pub(super) fn new(database: Database) -> Self {
        Self { database, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an idle connection, or opens one. The flag is true for a new connection.
    pub(super) async fn take(&self) -> Result<(RelayConnection, bool), RepositoryError> {
        let idle = self.state().idle.pop();
        if let Some(mut session) = idle {
            if session.checked_at.elapsed() < CHECK_INTERVAL {
                return Ok((session, false));
            }
            if repository::takes_writes(&mut session.connection).await? {
                session.checked_at = Instant::now();
                return Ok((session, false));
            }
            tracing::info!("the database is read-only; reconnecting to one that accepts writes");
            self.state().idle.clear();
        }
        let mut connection = repository::connect(&self.database, "relay").await?;
        outbox::configure_session(&mut connection).await?;
        let server_started_at = repository::server_started_at(&mut connection).await?;
        let mut state = self.state();
        if state.server_started_at.replace(server_started_at) != Some(server_started_at) {
            state.idle.clear();
        }
        Ok((RelayConnection { connection, server_started_at, checked_at: Instant::now() }, true))
    }

    /// Takes a connection back for reuse.
    pub(super) fn give_back(&self, session: RelayConnection) {
        let mut state = self.state();
        if state.server_started_at == Some(session.server_started_at) {
            state.idle.push(session);
        }
    }
}
