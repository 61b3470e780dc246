//! The settings of each session that the code depends on.
//!
//! Guarantees: the defaults of server, database, role and URL change neither what is written nor how long it may take. All
//! settings are set in one round trip, and no default is read at another place.
//!
//! Deliberately absent: `default_transaction_read_only`. An administrator, or a service whose disk is full, sets it to stop
//! writes, so a session that has it is refused like a standby.

use diesel_async::SimpleAsyncConnection;

use super::{Connection, RepositoryError};
use crate::config::Database;

/// Sets the settings of a new session.
pub(super) async fn prepare(connection: &mut Connection, database: &Database) -> Result<(), RepositoryError> {
    Ok(connection.batch_execute(&settings(database)).await?)
}

/// Returns one text with all statements. A pooler that shares sessions must get that far: prepared statements would fail.
fn settings(database: &Database) -> String {
    format!(
        "{};\nSET statement_timeout = {}; SET idle_in_transaction_session_timeout = {}; SET search_path = \"{}\", pg_temp",
        include_str!("session.sql").trim_end(),
        database.statement_timeout.as_millis(),
        database.idle_in_transaction_timeout.as_millis(),
        database.schema,
    )
}
