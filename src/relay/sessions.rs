//! The relay's own connections, prepared for its statements: one reads while others remove. Opened when first needed,
//! kept for the next time, dropped after any error.

use std::sync::{Mutex, PoisonError};

use crate::{
    config::Database,
    repository::{self, Connection, RepositoryError, outbox},
};

/// Connections at rest.
pub(super) struct Sessions {
    database: Database,
    at_rest: Mutex<Vec<Connection>>,
}

impl Sessions {
    pub(super) fn new(database: Database) -> Self {
        Self { database, at_rest: Mutex::default() }
    }

    /// One at rest, or a new one and the word that it is new.
    pub(super) async fn take(&self) -> Result<(Connection, bool), RepositoryError> {
        let at_rest = self.at_rest.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(connection) = at_rest {
            return Ok((connection, false));
        }
        let mut connection = repository::connect(&self.database, "relay").await?;
        outbox::prepare(&mut connection).await?;
        Ok((connection, true))
    }

    /// Puts one to rest; only after its last statement succeeded.
    pub(super) fn give_back(&self, connection: Connection) {
        self.at_rest.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}
