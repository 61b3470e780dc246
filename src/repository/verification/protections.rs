//! Compares the constraints, unique indexes and NOT NULLs of the database with the list in `protections.txt`.
//!
//! The list holds the statement that creates each of them. It is generated:
//! `LEDGER_WRITE_SCHEMA=1 cargo test --test integration database_schema` writes it from a freshly migrated database.

use std::collections::BTreeMap;

use diesel::{
    QueryableByName,
    sql_types::{Array, Nullable, Text},
};
use diesel_async::RunQueryDsl;

use super::{
    super::{Bind, Connection, RepositoryError, schema::TABLES, statement},
    findings::{Example, Findings},
};

const EXPECTED: &str = include_str!("protections.txt");

/// A protection of the schema.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Protection {
    /// The statement that creates it.
    #[diesel(sql_type = Text)]
    pub definition: String,
    /// Why it does not protect, if that is so.
    #[diesel(sql_type = Nullable<Text>)]
    pub problem: Option<String>,
}

/// Returns the protections of the database.
pub async fn protections(connection: &mut Connection) -> Result<Vec<Protection>, RepositoryError> {
    let found = statement(include_str!("protections.sql"))
        .bind::<Array<Text>, _>(TABLES.as_slice())
        .get_results(connection)
        .await?;
    Ok(found)
}

/// Finds protections that are missing, were changed or do not work. Returns the number of expected protections too.
/// Additional protections are no difference.
pub async fn protection_errors(connection: &mut Connection) -> Result<(i64, Findings), RepositoryError> {
    let found: BTreeMap<String, Option<String>> = protections(connection)
        .await?
        .into_iter()
        .map(|protection| (protection.definition, protection.problem))
        .collect();
    let (mut expected, mut errors) = (0, Findings::default());
    for definition in EXPECTED.lines() {
        expected += 1;
        match found.get(definition) {
            None => {
                errors.push(|| Example::new(format!("missing or changed; this restores it: {definition}")))
            }
            Some(Some(problem)) => errors.push(|| Example::new(format!("{definition}: {problem}"))),
            Some(None) => {}
        }
    }
    Ok((expected, errors))
}
