//! The result of a comparison.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Text},
};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection, methods::LoadQuery};
use serde::Serialize;
use serde_json::{Map, Value};

use super::super::{Connection, RepositoryError};

/// The most examples that a comparison returns.
pub const EXAMPLES_MAX: usize = 1_000;

/// A difference, in words and by the ids of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The difference for people: the fields with both values.
    pub text: String,
    /// The ids for programs: `account_id`, `account_seq`, `transaction_id`, `partition`, `offset`, `day` …
    #[serde(flatten)]
    pub ids: Map<String, Value>,
}

impl Example {
    /// Makes an example without ids.
    pub fn new(text: String) -> Self {
        Self { text, ids: Map::new() }
    }

    /// Makes an example from the JSON object of its ids.
    pub(super) fn with_ids(text: String, ids: &str) -> Self {
        Self { text, ids: serde_json::from_str(ids).unwrap_or_default() }
    }

    /// Adds an id.
    pub fn with(mut self, name: &str, id: impl Into<Value>) -> Self {
        self.ids.insert(name.to_owned(), id.into());
        self
    }
}

/// The differences that a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// The number of differences.
    pub differences: i64,
    /// Up to [`EXAMPLES_MAX`] of them.
    pub examples: Vec<Example>,
}

impl Findings {
    /// Adds the findings of another comparison.
    pub fn add(&mut self, other: Self) {
        self.differences += other.differences;
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }

    /// Adds one difference.
    pub fn push(&mut self, example: impl FnOnce() -> Example) {
        self.differences += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }
}

/// Creates the temporary functions with which the statements write their examples, up to `examples` each. Call it first.
pub async fn create_functions(connection: &mut Connection, examples: usize) -> Result<(), RepositoryError> {
    let limit = format!(
        "CREATE OR REPLACE FUNCTION pg_temp.verify_examples() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT {}::bigint'",
        examples.clamp(1, EXAMPLES_MAX)
    );
    connection.batch_execute(&limit).await?;
    connection.batch_execute(include_str!("create_functions.sql")).await?;
    Ok(())
}

#[derive(QueryableByName)]
pub(super) struct Difference {
    #[diesel(sql_type = BigInt)]
    total: i64,
    #[diesel(sql_type = Text)]
    ids: String,
    #[diesel(sql_type = Text)]
    example: String,
}

/// Runs a statement that returns rows of `total` (the same in each row), `ids` and `example`.
pub(super) async fn find<'query, Query>(
    connection: &mut Connection,
    query: Query,
) -> Result<Findings, RepositoryError>
where
    Query: LoadQuery<'query, Connection, Difference> + 'query,
{
    let differences: Vec<Difference> = query.get_results(connection).await?;
    let example = |difference: Difference| Example::with_ids(difference.example, &difference.ids);
    Ok(Findings {
        differences: differences.as_slice().first().map_or(0, |difference| difference.total),
        examples: differences.into_iter().map(example).collect(),
    })
}
