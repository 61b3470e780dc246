//! The indexes that migrations build concurrently, and the remains of an interrupted build.
//!
//! The effect of such a migration and its record are two commits. So before it runs, an index that is already there is
//! compared with the expected one:
//!
//! | the index | action |
//! | --- | --- |
//! | missing | it is built |
//! | invalid: its build was interrupted | it is dropped and built again |
//! | valid, as described | the migration is only recorded |
//! | valid, with another definition | refused |

use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{Bool, Text},
};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::super::{Bind, Connection, RepositoryError, statement};

struct ConcurrentIndex {
    migration: &'static str,
    name: &'static str,
    /// The short form of `pg_get_indexdef`.
    definition: &'static str,
}

const INDEXES: [ConcurrentIndex; 2] = [
    ConcurrentIndex {
        migration: "20261125030100",
        name: "risk_assessments_by_level",
        definition: "CREATE INDEX risk_assessments_by_level ON risk_assessments USING btree (risk_level, transaction_id) \
                     WHERE risk_level <> 'low'::text",
    },
    ConcurrentIndex {
        migration: "20261130100600",
        name: "fact_transactions_by_account",
        definition: "CREATE INDEX fact_transactions_by_account ON fact_transactions USING btree (account_id, business_date)",
    },
];

#[derive(QueryableByName)]
struct FoundIndex {
    #[diesel(sql_type = Bool)]
    is_valid: bool,
    #[diesel(sql_type = Text)]
    definition: String,
}

/// Returns whether the index of a migration is listed here.
#[cfg(test)]
pub(super) fn is_listed(migration: &str) -> bool {
    INDEXES.iter().any(|index| index.migration == migration)
}

/// Removes the invalid index that an interrupted run of this migration left. Refuses an index with another definition.
pub(super) async fn prepare(connection: &mut Connection, migration: &str) -> Result<(), RepositoryError> {
    for index in INDEXES.iter().filter(|index| index.migration == migration) {
        let found: Option<FoundIndex> = statement(include_str!("index.sql"))
            .bind::<Text, _>(index.name)
            .get_result(&mut *connection)
            .await
            .optional()?;
        let Some(found) = found else { continue };
        let name = index.name;
        if !found.is_valid {
            tracing::info!(
                index = name,
                "an earlier `ledger migrate` did not finish this index; building it again"
            );
            connection.batch_execute(&format!("DROP INDEX CONCURRENTLY {name}")).await?;
        } else if found.definition == index.definition {
            tracing::info!(index = name, "this index exists already; recording its migration");
        } else {
            return Err(RepositoryError::Migration(format!(
                "{migration}: the index {name} exists with another definition ({}); drop it and run `ledger migrate` again",
                found.definition
            )));
        }
    }
    Ok(())
}
