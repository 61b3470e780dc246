//! The rights of a user that runs every command except `migrate`, and owns nothing.
//!
//! Guarantees: the user gets exactly these rights on our tables and sequences, and loses every other right that the owner
//! gave it on them, in one database transaction. It can neither change the schema nor the recorded migrations nor a posted
//! transaction. Several instances may grant at once.
//!
//! Deliberately absent:
//! - `ALTER DEFAULT PRIVILEGES`, which would give the same rights on every table;
//! - rights of PUBLIC and of other roles, which stay. `verify`, `republish` and the dry run of an import need TEMPORARY on
//!   the database, which PUBLIC has unless it was revoked.

use diesel::{
    QueryableByName,
    sql_types::{Bool, Nullable, Text},
};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::{Bind, Connection, RepositoryError, sequences::SEQUENCES, statement, transaction};

/// The key of the advisory lock that one grant holds until it commits: PostgreSQL refuses concurrent changes of the rights
/// on a table. Any constant works except the key of `migrate`.
const ADVISORY_LOCK: i64 = 0x6772_616e_7473;

/// Every table with the rights that our statements need.
const RIGHTS: [(&str, &str); 21] = [
    ("__diesel_schema_migrations", "SELECT"),
    ("accounts", "SELECT, INSERT, UPDATE"),
    ("aggregate_runs", "SELECT, INSERT, UPDATE"),
    ("broker_identity", "SELECT, INSERT, UPDATE"),
    ("broker_partitions", "SELECT, INSERT, UPDATE"),
    ("broker_records", "SELECT, INSERT, DELETE"),
    ("broker_topics", "SELECT, INSERT, UPDATE, DELETE"),
    ("consumer_positions", "SELECT, INSERT, UPDATE, DELETE"),
    ("currencies", "SELECT"),
    ("dead_letter_replays", "SELECT, INSERT"),
    ("dead_letters", "SELECT, INSERT, UPDATE"),
    ("fact_account_day", "SELECT, INSERT, UPDATE, DELETE"),
    ("fact_marks", "SELECT, INSERT, DELETE"),
    ("fact_transactions", "SELECT, INSERT, UPDATE, DELETE"),
    ("lease_members", "SELECT, INSERT, UPDATE, DELETE"),
    ("leases", "SELECT, INSERT, UPDATE"),
    ("outbox", "SELECT, INSERT, DELETE"),
    ("republications", "SELECT, INSERT, UPDATE"),
    ("risk_assessments", "SELECT, INSERT"),
    ("schema_compatibility", "SELECT"),
    ("transactions", "SELECT, INSERT"),
];

#[derive(QueryableByName)]
struct Grantee {
    #[diesel(sql_type = Nullable<Text>)]
    name: Option<String>,
    #[diesel(sql_type = Bool)]
    is_owner: bool,
    #[diesel(sql_type = Text)]
    owner: String,
    #[diesel(sql_type = Text)]
    schema: String,
}

/// Grants `role` its rights on the migrated schema. Refuses a role that does not exist, and a role that has the rights of
/// the owner anyway.
pub async fn grant(connection: &mut Connection, role: &str) -> Result<(), RepositoryError> {
    let grantee: Grantee =
        statement(include_str!("grants/grantee.sql")).bind::<Text, _>(role).get_result(connection).await?;
    let (owner, schema) = (grantee.owner, grantee.schema);
    let Some(name) = grantee.name else {
        return Err(RepositoryError::Grants(format!(
            "--grants: there is no role {role}: CREATE ROLE \"{role}\" LOGIN PASSWORD '…'"
        )));
    };
    if grantee.is_owner {
        return Err(RepositoryError::Grants(format!(
            "--grants: the role {role} has all rights of {owner}, who owns the tables, so grants do not limit it: name another \
             role, which is no member of {owner} and no superuser"
        )));
    }
    let statements = statements(&name, &schema);
    transaction("grant rights", connection, async |connection: &mut Connection| {
        connection.batch_execute(&statements).await?;
        Ok(())
    })
    .await
}

/// Returns the statements for a role and a schema, whose names are quoted.
fn statements(role: &str, schema: &str) -> String {
    let tables = RIGHTS.map(|(table, _)| table).join(", ");
    let sequences = SEQUENCES.join(", ");
    let mut text = format!(
        "SELECT pg_advisory_xact_lock({ADVISORY_LOCK}); \
         REVOKE ALL ON {tables} FROM {role}; REVOKE ALL ON SEQUENCE {sequences} FROM {role}; \
         GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON SEQUENCE {sequences} TO {role}; \
         GRANT USAGE ON SEQUENCE outbox_id TO {role};"
    );
    for (table, rights) in RIGHTS {
        text += &format!(" GRANT {rights} ON {table} TO {role};");
    }
    text
}

/// Returns the number of tables that [`grant`] grants rights on.
pub const fn tables_granted() -> usize {
    RIGHTS.len()
}

#[cfg(test)]
mod tests {
    use super::{super::schema::TABLES, *};

    #[test]
    fn every_table_has_its_rights() {
        let granted: Vec<&str> = RIGHTS.iter().map(|(table, _)| *table).collect();
        let mut tables = vec!["__diesel_schema_migrations"];
        tables.extend(TABLES);
        assert_eq!(granted, tables, "name the rights of a new table");
    }
}
