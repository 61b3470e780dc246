//! The consumer groups that dead letters can belong to.

use diesel::{QueryableByName, sql_types::Text};
use diesel_async::RunQueryDsl;

use super::super::{Connection, RepositoryError, statement};

#[derive(QueryableByName)]
struct Group {
    #[diesel(sql_type = Text)]
    consumer_group: String,
}

/// Returns the consumer groups that have dead letters or positions, sorted.
pub async fn groups(connection: &mut Connection) -> Result<Vec<String>, RepositoryError> {
    let groups: Vec<Group> = statement(include_str!("groups.sql")).get_results(connection).await?;
    Ok(groups.into_iter().map(|group| group.consumer_group).collect())
}
