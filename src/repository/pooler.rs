//! Detects a connection pooler that shares sessions, such as PgBouncer with `pool_mode = transaction`.
//!
//! Such a pooler gives each database transaction another session of the server. Settings, prepared statements, advisory
//! locks and temporary tables of one client then apply to another. A pooler that keeps one session for each connection
//! (`pool_mode = session`) works.
//!
//! ```text
//! the process id received at the connect = pg_backend_pid()? ──yes──▶ no pooler
//!        │ no
//!        ▼
//! a second connection lets the server end its session after 100 ms of rest
//!        ├── the connection is lost ──────────────────────▶ the session was its own
//!        └── the connection has another session ──────────▶ refused
//! ```
//!
//! Guarantee: the answer does not depend on whether the pooler is busy. On an idle one, a connection may get the same
//! session again and again.
//!
//! Deliberately absent: a check of later connections. A pooler whose mode is changed needs a restart of the roles.

use std::time::Duration;

use diesel::{QueryableByName, sql_types::Integer};
use diesel_async::RunQueryDsl;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{Connection, RepositoryError, ServerProperties, connect, sqlstate::PlainText};
use crate::config::Database;

/// The server logs the end of this session with its name.
const ROLE: &str = "pooler check";
const PROCESS_ID: &str = "SELECT pg_backend_pid() AS process_id";
/// One statement, since a second one may run in another session.
const SHORTEN_REST: &str =
    "SELECT pg_backend_pid() AS process_id, set_config('idle_session_timeout', '100ms', false) AS rest";
/// Long enough that the server has ended the session.
const PAUSE: Duration = Duration::from_millis(200);
/// A busy machine may need several pauses.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// The size of a cancel request is 16 bytes.
const BUFFER_SIZE: usize = 64;

#[derive(QueryableByName)]
struct Session {
    #[diesel(sql_type = Integer)]
    process_id: i32,
}

/// Refuses a pooler that shares sessions. Without a pooler, this sends nothing.
pub async fn refuse_shared_sessions(
    connection: &Connection,
    properties: &ServerProperties,
    database: &Database,
) -> Result<(), RepositoryError> {
    if received_process_id(connection).await == Some(properties.process_id) {
        return Ok(());
    }
    let mut probe = connect(database, ROLE).await?;
    let first = process_id(&mut probe, SHORTEN_REST).await?;
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        tokio::time::sleep(PAUSE).await;
        match process_id(&mut probe, PROCESS_ID).await {
            Ok(now) if now != first => return Err(RepositoryError::SharedSession),
            Ok(_) if Instant::now() >= deadline => {
                return Err(RepositoryError::UnsuitableServer(format!(
                    "a connection pooler is in front of PostgreSQL, and it is unknown whether it shares sessions: \
                     idle_session_timeout had no effect for {WAIT_MAX:?}"
                )));
            }
            Ok(_) => {}
            Err(error) if error.is_connection_lost() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

async fn process_id(connection: &mut Connection, sql: &'static str) -> Result<i32, RepositoryError> {
    let session: Result<Session, _> = diesel::sql_query(sql).get_result(connection).await;
    session.map(|session| session.process_id).map_err(|error| RepositoryError::from(error).at_session_start())
}

/// Returns the process id that the driver received at the connect. A pooler sends an invented one. The driver does not
/// show it, but writes it at the end of a cancel request, before the key: four bytes each.
async fn received_process_id(connection: &Connection) -> Option<i32> {
    let (mut end, stream) = tokio::io::duplex(BUFFER_SIZE);
    // With TLS, the driver first asks whether the server speaks it, and waits for this answer.
    end.write_all(b"S").await.ok()?;
    connection.cancel_token().cancel_query_raw(stream, PlainText).await.ok()?;
    let mut request = Vec::new();
    end.read_to_end(&mut request).await.ok()?;
    let (id, _key) = request.last_chunk::<8>()?.split_first_chunk::<4>()?;
    Some(i32::from_be_bytes(*id))
}
