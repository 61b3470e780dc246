//! The progress of a running migration, and its end on request, as another session sees and ends it.

use std::fmt;

use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{BigInt, Integer, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::super::{Bind, Connection, RepositoryError, statement};

/// The state of a migration that builds an index or waits for other sessions.
#[derive(Debug, Clone, QueryableByName)]
pub struct MigrationProgress {
    #[diesel(sql_type = Nullable<Text>)]
    index_name: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    phase: Option<String>,
    /// The finished part of the phase, in percent.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub percent: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    waits_for: Option<String>,
}

impl fmt::Display for MigrationProgress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(name) = &self.index_name {
            parts.push(format!("index {name}"));
        }
        parts.extend(self.phase.clone());
        parts.extend(self.percent.map(|percent| format!("{percent} %")));
        parts.extend(self.waits_for.as_ref().map(|others| format!("waits for {others}")));
        formatter.write_str(&parts.join(", "))
    }
}

/// Returns the progress of a migration that runs in this server process, or None if it neither builds an index nor waits.
pub async fn progress(
    connection: &mut Connection,
    process_id: i32,
) -> Result<Option<MigrationProgress>, RepositoryError> {
    let query = statement(include_str!("progress.sql")).bind::<Integer, _>(process_id);
    let found: Option<MigrationProgress> = query.get_result(connection).await.optional()?;
    Ok(found.filter(|found| found.phase.is_some() || found.waits_for.is_some()))
}

/// Cancels the current statement of a server process.
pub async fn cancel(connection: &mut Connection, process_id: i32) -> Result<(), RepositoryError> {
    let query = statement("SELECT pg_cancel_backend(/* process_id */ $1)");
    query.bind::<Integer, _>(process_id).execute(connection).await?;
    Ok(())
}
