//! Creates databases in a private cluster of `ledger dev` and the tests. Production databases are never created here.

use diesel::{QueryableByName, sql_types::Bool};
use diesel_async::RunQueryDsl;

use super::{Connection, RepositoryError};

#[derive(QueryableByName)]
struct Exists {
    #[diesel(sql_type = Bool)]
    exists: bool,
}

/// Creates the database if it is missing, and returns whether it did. `name` must be a plain lower-case identifier.
pub async fn create_if_missing(connection: &mut Connection, name: &str) -> Result<bool, RepositoryError> {
    debug_assert!(
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    );
    let found = diesel::sql_query("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1) AS exists")
        .bind::<diesel::sql_types::Text, _>(name)
        .get_result::<Exists>(connection)
        .await?;
    if !found.exists {
        // CREATE DATABASE takes no binds and cannot run in a transaction.
        diesel::sql_query(format!("CREATE DATABASE \"{name}\"")).execute(connection).await?;
    }
    Ok(!found.exists)
}
