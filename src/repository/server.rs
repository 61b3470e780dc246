//! Queries about the server of a connection, and its session.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{Text, Timestamptz},
};
use diesel_async::RunQueryDsl;

use super::{Connection, RepositoryError, statement};

#[derive(QueryableByName)]
struct ReadOnly {
    #[diesel(sql_type = Text)]
    setting: String,
}

#[derive(QueryableByName)]
struct Started {
    #[diesel(sql_type = Timestamptz)]
    started_at: DateTime<Utc>,
}

/// Returns whether the server accepts writes.
pub async fn takes_writes(connection: &mut Connection) -> Result<bool, RepositoryError> {
    let asked = statement("SELECT current_setting('transaction_read_only') AS setting");
    Ok(asked.get_result::<ReadOnly>(connection).await?.setting == "off")
}

/// Returns the start time of the server. It identifies the server: another server, or the same one after a restart, has
/// a different time.
pub async fn server_started_at(connection: &mut Connection) -> Result<DateTime<Utc>, RepositoryError> {
    let asked = statement("SELECT pg_postmaster_start_time() AS started_at");
    Ok(asked.get_result::<Started>(connection).await?.started_at)
}
