//! Defaults of the database, or of the role in it, that change under the roles.

use super::schedule::Scope;
use crate::support::{postgres::TestDatabase, whole_path::OWN_SETTINGS};

const END_SESSIONS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()";

/// Returns a handle whose sessions do not depend on the defaults.
pub fn observer(database: &TestDatabase) -> TestDatabase {
    TestDatabase::at(&format!("{}{OWN_SETTINGS}", database.url))
}

/// Changes a default and ends all sessions, so that the roles connect again. Returns the number of sessions, or the
/// server's refusal.
pub async fn change(database: &TestDatabase, setting: &str, scope: Scope) -> Result<String, String> {
    let observer = observer(database);
    let (name, value) = setting.split_once('=').expect("a setting");
    let (database, role) = owners(&observer).await;
    let owner = match scope {
        Scope::Database => format!("DATABASE {database}"),
        Scope::Role => format!("ROLE {role} IN DATABASE {database}"),
    };
    let alter = format!("ALTER {owner} SET {name} = '{value}'");
    writer(&observer).await.batch_execute(&alter).await.map_err(|error| format!("{alter}: {error}"))?;
    Ok(format!("{alter}: {} sessions end", observer.value(END_SESSIONS).await))
}

/// Removes all defaults and ends all sessions.
pub async fn reset(database: &TestDatabase) {
    let observer = observer(database);
    let (database, role) = owners(&observer).await;
    let reset =
        format!("ALTER DATABASE {database} RESET ALL; ALTER ROLE {role} IN DATABASE {database} RESET ALL");
    writer(&observer).await.batch_execute(&reset).await.expect(&reset);
    observer.value(END_SESSIONS).await;
}

/// Opens a session that can write although the default may be read-only.
async fn writer(observer: &TestDatabase) -> tokio_postgres::Client {
    let client = observer.client().await;
    client.batch_execute("SET default_transaction_read_only = off").await.expect("set");
    client
}

async fn owners(observer: &TestDatabase) -> (String, String) {
    let quoted = async |name: &str| observer.value(&format!("SELECT quote_ident({name})")).await;
    (quoted("current_database()").await, quoted("current_user").await)
}
