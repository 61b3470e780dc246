//! The properties of a server that a ledger depends on, and the refusal of an unsuitable one.
//!
//! Guarantees: one statement reads all of them, and nothing is written. Deliberately absent: `synchronous_commit`, which
//! each connection sets for itself (see [`super::connect`]).

use diesel::{
    QueryableByName,
    sql_types::{Integer, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::{Connection, RepositoryError, statement};
use crate::config::Database;

/// The oldest supported version, as in `server_version_num`.
const VERSION_NUM_MIN: i32 = 150_000;
const ENCODING: &str = "UTF8";

/// The properties of a server and its database.
#[derive(Debug, Clone, QueryableByName)]
pub struct ServerProperties {
    #[diesel(sql_type = Integer)]
    version_num: i32,
    #[diesel(sql_type = Text)]
    version: String,
    #[diesel(sql_type = Text)]
    database: String,
    #[diesel(sql_type = Text)]
    encoding: String,
    /// The settings of durability that are off, each with its origin: `fsync = off (command line)`. None if all are on.
    #[diesel(sql_type = Nullable<Text>)]
    pub not_durable: Option<String>,
}

/// Reads the properties of the server.
pub async fn server_properties(connection: &mut Connection) -> Result<ServerProperties, RepositoryError> {
    Ok(statement(include_str!("server_properties.sql")).get_result(connection).await?)
}

impl ServerProperties {
    /// Refuses a server that cannot hold a ledger, naming the remedy.
    pub fn check(&self, database: &Database) -> Result<(), RepositoryError> {
        let Self { version_num, version, database: name, encoding, not_durable } = self;
        if *version_num < VERSION_NUM_MIN {
            return unsuitable(format!(
                "PostgreSQL {version} (server_version) is too old: this binary needs version {} or newer; upgrade the server",
                VERSION_NUM_MIN / 10_000
            ));
        }
        if encoding != ENCODING {
            return unsuitable(format!(
                "the database {name} has the server_encoding {encoding}, which cannot store every text; create a database \
                 with ENCODING 'UTF8' TEMPLATE template0 and name it in database.url"
            ));
        }
        match not_durable {
            Some(settings) if !database.accept_data_loss => unsuitable(format!(
                "PostgreSQL runs with {settings}, so a crash of its machine can lose acknowledged transactions or damage \
                 the database; switch it on and reload the server, or accept the loss with database.accept_data_loss = true"
            )),
            _ => Ok(()),
        }
    }
}

fn unsuitable(detail: String) -> Result<(), RepositoryError> {
    Err(RepositoryError::UnsuitableServer(detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Overrides};

    fn properties(version_num: i32, version: &str) -> ServerProperties {
        ServerProperties {
            version_num,
            version: version.into(),
            database: "ledger".into(),
            encoding: ENCODING.into(),
            not_durable: None,
        }
    }

    #[test]
    fn versions_below_15_are_refused() {
        let database = config::load(None, std::iter::empty(), &Overrides::new()).unwrap().database;
        assert!(properties(150_000, "15.0").check(&database).is_ok());
        assert!(properties(170_002, "17.2").check(&database).is_ok());
        let refused = properties(140_019, "14.19").check(&database).unwrap_err().to_string();
        assert!(refused.contains("PostgreSQL 14.19") && refused.contains("version 15 or newer"), "{refused}");
    }
}
