//! The embedded migrations: applies them, and refuses to run on a schema that does not fit this binary.
//!
//! ```text
//! take the lock ─▶ compare versions ─▶ for each missing migration: remove an unfinished index ─▶ run ─▶ record
//! ```
//!
//! Guarantees:
//!
//! - A `migrate` that is killed at any moment can run again. A migration in a database transaction commits its effect
//!   and its record together. A migration without one is a single statement that does nothing if its effect exists.
//! - If the process is gone, the server cancels its statement within a second and releases the lock.
//! - A table of versions that another application uses is refused.
//! - A newer schema is accepted if it says that binaries of this version may run on it. So the previous release can be
//!   installed again after an upgrade.

mod indexes;
mod lock;
mod progress;

use std::time::Duration;

use diesel::{
    QueryDsl, QueryableByName,
    migration::{Migration, MigrationSource},
    pg::Pg,
    sql_types::{Bool, Integer, Text},
};
use diesel_async::{AsyncMigrationHarness, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{Connection, RepositoryError, statement};

pub use progress::{MigrationProgress, cancel, progress};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

const MIGRATE_FIRST: &str = "run `ledger migrate` against this database first";
const UPGRADE_FIRST: &str = "the schema is newer than this binary and breaks its statements: upgrade `ledger` to the release that migrated it";

/// Migrations have no limit for a statement. The server notices that the client is gone, also during a long statement.
const SESSION: &str = "SET statement_timeout = 0; SET client_connection_check_interval = '1s'";
/// How long a migration waits for a lock. Later statements of other sessions queue up for that time.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a concurrent build waits for the database transactions of other sessions. It blocks no reads or writes.
const CONCURRENT_LOCK_TIMEOUT: Duration = Duration::from_secs(3600);
/// The SQLSTATE of a lock that was not free in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";
const LOCKED_ADVICE: &str = "; another session holds a lock or has a long database transaction (see pg_stat_activity): run \
     `ledger migrate` again when it has ended";

#[derive(QueryableByName)]
struct Exists {
    #[diesel(sql_type = Bool)]
    exists: bool,
}

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

#[derive(QueryableByName)]
struct ProcessId {
    #[diesel(sql_type = Integer)]
    process_id: i32,
}

/// A connection that holds the lock of `migrate` until it is closed.
pub struct Migrator {
    connection: Connection,
}

impl Migrator {
    /// Takes the lock, so that only one `migrate` runs at a time. Fails if the lock is not free within a minute.
    pub async fn lock(mut connection: Connection) -> Result<Self, RepositoryError> {
        connection.batch_execute(SESSION).await?;
        lock::take(&mut connection).await?;
        Ok(Self { connection })
    }

    /// Returns the id of the server process that runs the migrations.
    pub async fn process_id(&mut self) -> Result<i32, RepositoryError> {
        let query = statement("SELECT pg_backend_pid() AS process_id");
        Ok(query.get_result::<ProcessId>(&mut self.connection).await?.process_id)
    }

    /// Applies the missing migrations and returns their versions. Leaves a newer schema as it is if this binary may run
    /// on it, and refuses it otherwise.
    pub async fn apply(self) -> Result<Vec<String>, RepositoryError> {
        let Self { mut connection } = self;
        let ours = versions()?;
        let applied = applied_versions(&mut connection).await?;
        match compare(&applied, &ours) {
            Schema::Older { .. } => {}
            other => check(other, &ours, &mut connection).await?,
        }
        let missing: Vec<String> = ours.into_iter().filter(|version| !applied.contains(version)).collect();
        for version in &missing {
            connection = apply_one(connection, version).await?;
        }
        Ok(missing)
    }
}

/// Takes the lock, applies the missing migrations and returns their versions.
pub async fn migrate(connection: Connection) -> Result<Vec<String>, RepositoryError> {
    Migrator::lock(connection).await?.apply().await
}

/// Applies one migration. Takes the connection by value, because diesel's harness must own it.
async fn apply_one(mut connection: Connection, version: &str) -> Result<Connection, RepositoryError> {
    let in_transaction = find(version)?.metadata().run_in_transaction();
    let lock_timeout = if in_transaction { LOCK_TIMEOUT } else { CONCURRENT_LOCK_TIMEOUT };
    connection.batch_execute(&format!("SET lock_timeout = {}", lock_timeout.as_millis())).await?;
    indexes::prepare(&mut connection, version).await?;
    let name = version.to_owned();
    let applied = tokio::task::spawn_blocking(move || {
        let migration = find(&name)?;
        let mut harness = AsyncMigrationHarness::new(connection);
        // This creates the table of the versions.
        harness.applied_migrations().map_err(|error| failure(error.to_string()))?;
        harness.run_migration(&*migration).map_err(|error| failure(error.to_string()))?;
        Ok(harness.into_inner())
    })
    .await;
    applied.map_err(|error| RepositoryError::Migration(error.to_string()))?
}

/// diesel's error is private, but its text contains the code, as [`super::sqlstate`] puts it in front of the message.
fn failure(mut message: String) -> RepositoryError {
    if message.split(": ").any(|part| part == LOCK_NOT_AVAILABLE) {
        message += LOCKED_ADVICE;
    }
    RepositoryError::Migration(message)
}

fn find(version: &str) -> Result<Box<dyn Migration<Pg>>, RepositoryError> {
    let found = all()?.into_iter().find(|migration| migration.name().version().to_string() == version);
    found.ok_or_else(|| RepositoryError::Migration(format!("there is no migration {version}")))
}

fn all() -> Result<Vec<Box<dyn Migration<Pg>>>, RepositoryError> {
    MIGRATIONS.migrations().map_err(|error| RepositoryError::Migration(error.to_string()))
}

/// Returns the versions of the migrations in this binary, in order.
fn versions() -> Result<Vec<String>, RepositoryError> {
    let mut versions: Vec<String> =
        all()?.iter().map(|migration| migration.name().version().to_string()).collect();
    versions.sort();
    Ok(versions)
}

/// Returns the version of the schema that this binary works with.
pub fn schema_version() -> Result<String, RepositoryError> {
    Ok(versions()?.pop().unwrap_or_default())
}

/// Returns the versions of the applied migrations, in order.
async fn applied_versions(connection: &mut Connection) -> Result<Vec<String>, RepositoryError> {
    let table = statement("SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS exists");
    if !table.get_result::<Exists>(&mut *connection).await?.exists {
        return Ok(Vec::new());
    }
    let applied =
        statement("SELECT version::text AS version FROM __diesel_schema_migrations ORDER BY version");
    let rows: Vec<Version> = applied.load(connection).await?;
    Ok(rows.into_iter().map(|row| row.version).collect())
}

/// Refuses a schema that is older than this binary, or newer and incompatible, naming the command to run.
pub async fn check_schema(connection: &mut Connection) -> Result<(), RepositoryError> {
    let ours = versions()?;
    let schema = compare(&applied_versions(connection).await?, &ours);
    check(schema, &ours, connection).await
}

/// Returns the newest migration of a schema that is newer than this binary.
pub async fn newer_version(connection: &mut Connection) -> Result<Option<String>, RepositoryError> {
    Ok(match compare(&applied_versions(connection).await?, &versions()?) {
        Schema::Newer { found } => Some(found),
        Schema::Current | Schema::Older { .. } | Schema::Foreign { .. } => None,
    })
}

/// Refuses everything but the current schema and a newer, compatible one.
async fn check(schema: Schema, ours: &[String], connection: &mut Connection) -> Result<(), RepositoryError> {
    let wanted = ours.last().cloned().unwrap_or_default();
    Err(match schema {
        Schema::Current => return Ok(()),
        Schema::Older { found } => RepositoryError::SchemaMismatch { found, wanted, advice: MIGRATE_FIRST },
        Schema::Newer { found } => {
            if ours.contains(&oldest_binary(connection).await?) {
                tracing::info!(
                    schema = found,
                    binary = wanted,
                    "the schema is newer than this binary and compatible"
                );
                return Ok(());
            }
            RepositoryError::SchemaMismatch { found, wanted, advice: UPGRADE_FIRST }
        }
        Schema::Foreign { version } => RepositoryError::UnsuitableServer(format!(
            "the table __diesel_schema_migrations holds the version {version}, which is no migration of ledger: another \
             application keeps its migrations in this schema; set database.schema to a schema of its own for ledger"
        )),
    })
}

/// Returns the newest migration that a binary must contain to run on this schema.
async fn oldest_binary(connection: &mut Connection) -> Result<String, RepositoryError> {
    use super::schema::schema_compatibility::dsl::{oldest_binary, schema_compatibility};

    Ok(schema_compatibility.select(oldest_binary).get_result(connection).await?)
}

/// The migrations of a database compared with the migrations of this binary.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Schema {
    Current,
    /// Migrations are missing. `found` names the newest applied one.
    Older {
        found: String,
    },
    Newer {
        found: String,
    },
    /// A version is no migration of any release of `ledger`.
    Foreign {
        version: String,
    },
}

/// Compares the applied migrations with our own. Both are in order.
///
/// A newer release has all our migrations and later ones. Any other unknown version is of another application.
fn compare(applied: &[String], ours: &[String]) -> Schema {
    let newest = ours.last();
    let has_first = ours.first().is_some_and(|first| applied.contains(first));
    let is_later = |version: &String| has_first && newest.is_none_or(|newest| version > newest);
    let unknown = || applied.iter().filter(|version| !ours.contains(version));
    if let Some(version) = unknown().find(|version| !is_later(version)) {
        return Schema::Foreign { version: version.clone() };
    }
    let missing = ours.iter().find(|version| !applied.contains(version));
    match (missing, applied.last()) {
        (None, _) => match unknown().next_back() {
            Some(found) => Schema::Newer { found: found.clone() },
            None => Schema::Current,
        },
        (Some(_), None) => Schema::Older { found: "none".into() },
        (Some(missing), Some(last)) if missing < last => {
            Schema::Older { found: format!("{last} without {missing}") }
        }
        (Some(_), Some(last)) => Schema::Older { found: last.clone() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(versions: &[&str]) -> Vec<String> {
        versions.iter().map(|version| (*version).to_owned()).collect()
    }

    /// A `migrate` may be killed between such a statement and its record.
    #[test]
    fn a_migration_without_a_database_transaction_is_one_statement_that_can_be_repeated() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut found = 0;
        for migration in all().unwrap() {
            if migration.metadata().run_in_transaction() {
                continue;
            }
            let sql =
                std::fs::read_to_string(folder.join(migration.name().to_string()).join("up.sql")).unwrap();
            let statements = sql.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join(" ");
            assert_eq!(statements.matches(';').count(), 1, "{sql}");
            let version = migration.name().version().to_string();
            match statements.starts_with("CREATE INDEX CONCURRENTLY IF NOT EXISTS ") {
                true => assert!(indexes::is_listed(&version), "{version} is not in INDEXES"),
                false => assert!(statements.starts_with("DROP INDEX CONCURRENTLY IF EXISTS "), "{sql}"),
            }
            found += 1;
        }
        assert!(found > 0);
    }

    #[test]
    fn missing_newer_and_foreign_migrations_are_told_apart() {
        let ours = texts(&["20260101", "20260201", "20260301"]);
        let older = |found: &str| Schema::Older { found: found.into() };
        for (applied, expected) in [
            (&["20260101", "20260201", "20260301"][..], Schema::Current),
            (&[], older("none")),
            (&["20260101"], older("20260101")),
            (&["20260101", "20260301"], older("20260301 without 20260201")),
            (&["20260101", "20260201", "20260301", "20260401"], Schema::Newer { found: "20260401".into() }),
            (&["20260101", "20260301", "20260401"], older("20260401 without 20260201")),
            (&["00000000", "20240101"], Schema::Foreign { version: "00000000".into() }),
            (&["20270101"], Schema::Foreign { version: "20270101".into() }),
            (&["20260101", "20260115", "20260301"], Schema::Foreign { version: "20260115".into() }),
        ] {
            assert_eq!(compare(&texts(applied), &ours), expected, "{applied:?}");
        }
    }
}
