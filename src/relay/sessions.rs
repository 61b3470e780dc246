//! The relay's own connections, prepared for its statements: one reads while others remove. Opened when first needed,
//! kept for the next time, dropped after any error.
//!
//! A primary that has become read-only answers a look as before, with nothing new for ever. So each connection is asked
//! now and then whether its server still takes writes; and once one was opened to another server, those to the old one
//! are dropped.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use crate::{
    config::Database,
    repository::{self, Connection, RepositoryError, outbox},
};

/// Between two questions to a connection that is used all the time or rests for long.
const ASK_INTERVAL: Duration = Duration::from_secs(2);

/// Connections at rest.
pub(super) struct Sessions {
    database: Database,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    at_rest: Vec<Session>,
    /// The one that was connected to last.
    server_started_at: Option<DateTime<Utc>>,
}

/// A connection, to be given back only after its last statement succeeded.
pub(super) struct Session {
    pub(super) connection: Connection,
    /// Tells one server from another.
    server_started_at: DateTime<Utc>,
    asked_at: Instant,
}

impl Sessions {
    pub(super) fn new(database: Database) -> Self {
        Self { database, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One at rest, or a new one and the word that it is new.
    pub(super) async fn take(&self) -> Result<(Session, bool), RepositoryError> {
        let at_rest = self.state().at_rest.pop();
        if let Some(mut session) = at_rest {
            if session.asked_at.elapsed() < ASK_INTERVAL {
                return Ok((session, false));
            }
            if repository::takes_writes(&mut session.connection).await? {
                session.asked_at = Instant::now();
                return Ok((session, false));
            }
            tracing::info!("the database has become read-only: looking for the one that takes writes");
            self.state().at_rest.clear();
        }
        let mut connection = repository::connect(&self.database, "relay").await?;
        outbox::configure_session(&mut connection).await?;
        let server_started_at = repository::server_started_at(&mut connection).await?;
        let mut state = self.state();
        if state.server_started_at.replace(server_started_at) != Some(server_started_at) {
            state.at_rest.clear();
        }
        Ok((Session { connection, server_started_at, asked_at: Instant::now() }, true))
    }

    /// Puts one to rest.
    pub(super) fn give_back(&self, session: Session) {
        let mut state = self.state();
        if state.server_started_at == Some(session.server_started_at) {
            state.at_rest.push(session);
        }
    }
}
