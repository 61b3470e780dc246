//! The embedded migrations: applies them, and refuses to run on a schema of another version.

use std::time::Duration;

use diesel::{
    QueryableByName,
    migration::{Migration, MigrationSource},
    pg::Pg,
    sql_types::{Bool, Nullable, Text},
};
use diesel_async::{AsyncMigrationHarness, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::time::Instant;

use super::{Connection, RepositoryError};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// The key of the advisory lock of `migrate`. Any constant works.
const ADVISORY_LOCK: i64 = 0x6c65_6467_6572;

const MIGRATE_FIRST: &str = "run `ledger migrate` against this database first";
const UPGRADE_FIRST: &str =
    "the schema is newer than this binary: upgrade `ledger` to the release that migrated it";

/// The indexes that migrations build concurrently. An interrupted build leaves an invalid index, which would make every
/// further attempt fail.
const BUILT_CONCURRENTLY: [&str; 1] = ["risk_assessments_by_level"];

/// How long to wait for another `migrate`.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause between two attempts to take the lock.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    holds: bool,
}

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = Nullable<Text>)]
    version: Option<String>,
}

/// Applies the missing migrations and returns their versions. Only one `migrate` runs at a time. Refuses a schema that is
/// newer than this binary. Takes the connection by value, because the harness must own it.
pub async fn migrate(mut connection: Connection) -> Result<Vec<String>, RepositoryError> {
    diesel::sql_query("SET lock_timeout = '60s'").execute(&mut connection).await?;
    diesel::sql_query("SET statement_timeout = 0").execute(&mut connection).await?;
    lock(&mut connection).await?;
    let wanted = schema_version()?;
    if let Some(found) = newest_applied(&mut connection).await?
        && found > wanted
    {
        return Err(RepositoryError::SchemaMismatch { found, wanted, advice: UPGRADE_FIRST });
    }
    remove_unfinished_indexes(&mut connection).await?;
    // The harness is synchronous. The lock ends with the connection, which the harness drops.
    let applied = tokio::task::spawn_blocking(move || {
        let mut harness = AsyncMigrationHarness::new(connection);
        let versions = harness.run_pending_migrations(MIGRATIONS).map_err(|error| error.to_string())?;
        Ok(versions.iter().map(ToString::to_string).collect())
    })
    .await;
    applied
        .map_err(|error| RepositoryError::Migration(error.to_string()))?
        .map_err(RepositoryError::Migration)
}

/// Takes the lock of `migrate`, which ends with the connection. It polls instead of waiting inside PostgreSQL: a waiting
/// statement holds a snapshot, and a concurrent index build of the other `migrate` waits for all snapshots. They would
/// wait for each other.
async fn lock(connection: &mut Connection) -> Result<(), RepositoryError> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        let query = format!("SELECT pg_try_advisory_lock({ADVISORY_LOCK}) AS holds");
        if diesel::sql_query(query).get_result::<Answer>(connection).await?.holds {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let what = format!(
                "another `ledger migrate` has been running for more than {LOCK_TIMEOUT:?}; try again later"
            );
            return Err(RepositoryError::Migration(what));
        }
        tokio::time::sleep(LOCK_POLL_INTERVAL).await;
    }
}

/// Removes invalid indexes. A `migrate` leaves one if it is killed, or times out on another session's snapshot, during a
/// concurrent index build.
async fn remove_unfinished_indexes(connection: &mut Connection) -> Result<(), RepositoryError> {
    for index in BUILT_CONCURRENTLY {
        let unfinished = diesel::sql_query(
            "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid) AS holds",
        )
        .bind::<Text, _>(index)
        .get_result::<Answer>(connection)
        .await?;
        if unfinished.holds {
            tracing::info!(index, "an earlier migration did not finish this index; building it again");
            diesel::sql_query(format!("DROP INDEX CONCURRENTLY {index}")).execute(connection).await?;
        }
    }
    Ok(())
}

/// Refuses a schema that is older or newer than this binary, naming the command to run.
pub async fn check_schema(connection: &mut Connection) -> Result<(), RepositoryError> {
    let wanted = schema_version()?;
    let found = newest_applied(connection).await?;
    let advice = match &found {
        Some(found) if *found == wanted => return Ok(()),
        Some(found) if *found > wanted => UPGRADE_FIRST,
        _ => MIGRATE_FIRST,
    };
    Err(RepositoryError::SchemaMismatch { found: found.unwrap_or_else(|| "none".into()), wanted, advice })
}

/// Returns the version of the schema that this binary works with.
pub fn schema_version() -> Result<String, RepositoryError> {
    let migrations: Vec<Box<dyn Migration<Pg>>> =
        MIGRATIONS.migrations().map_err(|error| RepositoryError::Migration(error.to_string()))?;
    Ok(migrations.iter().map(|migration| migration.name().version().to_string()).max().unwrap_or_default())
}

async fn newest_applied(connection: &mut Connection) -> Result<Option<String>, RepositoryError> {
    let table = diesel::sql_query("SELECT to_regclass('__diesel_schema_migrations')::text AS version")
        .get_result::<Version>(connection)
        .await?;
    if table.version.is_none() {
        return Ok(None);
    }
    let newest = diesel::sql_query("SELECT max(version) AS version FROM __diesel_schema_migrations")
        .get_result::<Version>(connection)
        .await?;
    Ok(newest.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_that_is_built_concurrently_is_listed() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut built = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let Ok(sql) = std::fs::read_to_string(entry.unwrap().path().join("up.sql")) else { continue };
            let statement = sql.split("INDEX CONCURRENTLY ").nth(1).filter(|_| sql.contains("CREATE"));
            built.extend(statement.and_then(|rest| rest.split_whitespace().next()).map(ToOwned::to_owned));
        }
        built.sort();
        assert_eq!(built, BUILT_CONCURRENTLY);
    }
}
