//! The result of a comparison.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Text},
};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection, methods::LoadQuery};

use super::super::{Connection, RepositoryError};

/// How many examples a comparison returns at most.
pub const EXAMPLES_MAX: usize = 10;

/// The differences that a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// The number of differences.
    pub differences: i64,
    /// Up to [`EXAMPLES_MAX`] of them, in words.
    pub examples: Vec<String>,
}

impl Findings {
    /// Adds the findings of another comparison.
    pub fn add(&mut self, other: Self) {
        self.differences += other.differences;
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }

    /// Adds one difference.
    pub fn push(&mut self, example: impl FnOnce() -> String) {
        self.differences += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }
}

/// Creates the temporary functions with which the statements write their examples. Call it first.
pub async fn create_functions(connection: &mut Connection) -> Result<(), RepositoryError> {
    connection.batch_execute(include_str!("create_functions.sql")).await?;
    Ok(())
}

#[derive(QueryableByName)]
pub(super) struct Difference {
    #[diesel(sql_type = BigInt)]
    total: i64,
    #[diesel(sql_type = Text)]
    example: String,
}

/// Runs a statement that returns rows of `total` (the same in each row) and `example`.
pub(super) async fn find<'query, Query>(
    connection: &mut Connection,
    query: Query,
) -> Result<Findings, RepositoryError>
where
    Query: LoadQuery<'query, Connection, Difference> + 'query,
{
    let differences: Vec<Difference> = query.get_results(connection).await?;
    Ok(Findings {
        differences: differences.as_slice().first().map_or(0, |difference| difference.total),
        examples: differences.into_iter().map(|difference| difference.example).collect(),
    })
}
