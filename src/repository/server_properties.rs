//! The properties of a server that a ledger depends on, and the refusal of an unsuitable one.
//!
//! Guarantees: one statement reads all of them, and nothing is written. Deliberately absent: settings that each connection
//! sets for itself (see [`super::session`]).

use diesel::{
    QueryableByName,
    sql_types::{Array, Integer, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::{Bind, Connection, RepositoryError, schema::TABLES, statement};
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
    /// The server process of the session.
    #[diesel(sql_type = Integer)]
    pub(super) process_id: i32,
    #[diesel(sql_type = Text)]
    user_name: String,
    /// The configured schema, or None if the user cannot use it.
    #[diesel(sql_type = Nullable<Text>)]
    schema: Option<String>,
    /// Our tables of which row-level security hides rows from the user.
    #[diesel(sql_type = Nullable<Text>)]
    filtered_tables: Option<String>,
    /// The setting with which triggers do not run, and its origin.
    #[diesel(sql_type = Nullable<Text>)]
    without_triggers: Option<String>,
    /// The settings of durability that are off, each with its origin: `fsync = off (command line)`. None if all are on.
    #[diesel(sql_type = Nullable<Text>)]
    pub not_durable: Option<String>,
}

/// Reads the properties of the server.
pub async fn server_properties(connection: &mut Connection) -> Result<ServerProperties, RepositoryError> {
    let query = statement(include_str!("server_properties.sql")).bind::<Array<Text>, _>(TABLES.as_slice());
    query.get_result(connection).await.map_err(|error| RepositoryError::from(error).at_session_start())
}

impl ServerProperties {
    /// Refuses a server that cannot hold a ledger, naming the remedy.
    pub fn check(&self, database: &Database) -> Result<(), RepositoryError> {
        self.check_server()?;
        self.check_session(database)?;
        self.check_durability(database)
    }

    fn check_server(&self) -> Result<(), RepositoryError> {
        let Self { version_num, version, database: name, encoding, .. } = self;
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
        Ok(())
    }

    /// Refuses what would hide rows or leave out checks in every session of the user.
    fn check_session(&self, database: &Database) -> Result<(), RepositoryError> {
        let Self { user_name, .. } = self;
        let wanted = &database.schema;
        if self.schema.as_ref() != Some(wanted) {
            return unsuitable(format!(
                "the schema {wanted} (database.schema) does not exist, or the user {user_name} may not use it; \
                 CREATE SCHEMA {wanted} AUTHORIZATION {user_name}, or GRANT USAGE ON SCHEMA {wanted} TO {user_name}"
            ));
        }
        if let Some(tables) = &self.filtered_tables {
            return unsuitable(format!(
                "row-level security hides rows of {tables} from the user {user_name}; disable it on these tables, or \
                 ALTER ROLE {user_name} BYPASSRLS"
            ));
        }
        if let Some(setting) = &self.without_triggers {
            return unsuitable(format!(
                "sessions run with {setting}, so the triggers that keep the ledger append-only do not run; reset the setting \
                 for the user {user_name} and the database"
            ));
        }
        Ok(())
    }

    fn check_durability(&self, database: &Database) -> Result<(), RepositoryError> {
        match &self.not_durable {
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
            process_id: 1,
            user_name: "ledger".into(),
            schema: Some("public".into()),
            filtered_tables: None,
            without_triggers: None,
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
