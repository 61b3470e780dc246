//! Positions of consumer groups: the next offset of each partition, and how often the record there was tried.
//!
//! Guarantees: a consumer only ever moves a position from the offset that it believes it to be at, so it never goes
//! back and two owners cannot both move it; [`reset`] alone goes anywhere, and belongs to the operator. Everything here
//! runs inside the caller's transaction, next to the lease's fence and the results that the move stands for.

use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{BigInt, Bool, Integer, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;

use super::{Bind, Connection, RepositoryError, statement};

/// One partition as one group sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PartitionName {
    /// The consumer group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

impl PartitionName {
    /// Name of the lease that whoever moves the position must hold.
    pub fn lease_name(&self) -> String {
        format!("consume-risk/{self}")
    }
}

impl std::fmt::Display for PartitionName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}/{}", self.group, self.topic, self.partition)
    }
}

/// Where a group is in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Position {
    /// The first offset that is not handled.
    #[diesel(sql_type = BigInt)]
    pub next_offset: i64,
    /// How often the record there was tried alone.
    #[diesel(sql_type = Integer)]
    pub attempts: i32,
    /// An owner began its first batch here and never came back.
    #[diesel(sql_type = Bool)]
    pub interrupted: bool,
}

/// A row for people.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct PositionRow {
    /// The consumer group.
    #[diesel(sql_type = Text)]
    pub consumer_group: String,
    /// The topic.
    #[diesel(sql_type = Text)]
    pub topic: String,
    /// The partition.
    #[diesel(sql_type = Integer)]
    pub partition: i32,
    /// The first offset that is not handled.
    #[diesel(sql_type = BigInt)]
    pub next_offset: i64,
    /// How often the record there was tried alone.
    #[diesel(sql_type = Integer)]
    pub attempts: i32,
    /// An owner began its first batch here and never came back.
    #[diesel(sql_type = Bool)]
    pub interrupted: bool,
    /// When the position last changed.
    #[diesel(sql_type = Timestamptz)]
    pub updated_at: chrono::DateTime<chrono::Utc>,
}

/// Reads a position.
pub async fn read(
    connection: &mut Connection,
    name: &PartitionName,
) -> Result<Option<Position>, RepositoryError> {
    let found = statement(
        "SELECT next_offset, attempts, interrupted FROM consumer_positions
         WHERE consumer_group = ? AND topic = ? AND partition = ?",
    )
    .bind::<Text, _>(&name.group)
    .bind::<Text, _>(&name.topic)
    .bind::<Integer, _>(name.partition)
    .get_result::<Position>(connection)
    .await
    .optional()?;
    Ok(found)
}

/// Makes the position of a group that is new to the partition; changes nothing for one that is not.
pub async fn create(
    connection: &mut Connection,
    name: &PartitionName,
    first_offset: i64,
) -> Result<(), RepositoryError> {
    statement(
        "INSERT INTO consumer_positions (consumer_group, topic, partition, next_offset) VALUES (?, ?, ?, ?)
         ON CONFLICT DO NOTHING",
    )
    .bind::<Text, _>(&name.group)
    .bind::<Text, _>(&name.topic)
    .bind::<Integer, _>(name.partition)
    .bind::<BigInt, _>(first_offset)
    .execute(connection)
    .await?;
    Ok(())
}

/// Moves a position forward. `interrupted` stays set while records are tried one by one.
pub async fn advance(
    connection: &mut Connection,
    name: &PartitionName,
    from: i64,
    to: i64,
    interrupted: bool,
) -> Result<(), RepositoryError> {
    let moved = statement(
        "UPDATE consumer_positions
         SET next_offset = ?, attempts = 0, interrupted = ?, updated_at = clock_timestamp()
         WHERE consumer_group = ? AND topic = ? AND partition = ? AND next_offset = ?",
    )
    .bind::<BigInt, _>(to)
    .bind::<Bool, _>(interrupted)
    .bind::<Text, _>(&name.group)
    .bind::<Text, _>(&name.topic)
    .bind::<Integer, _>(name.partition)
    .bind::<BigInt, _>(from)
    .execute(connection)
    .await?;
    expect_one(moved, name)
}

/// Notes that the record or the batch at `offset` is about to be tried: `attempts` becomes what is given. Commit this
/// before the try, so that it survives one that kills the process.
pub async fn note_attempt(
    connection: &mut Connection,
    name: &PartitionName,
    offset: i64,
    attempts: i32,
) -> Result<(), RepositoryError> {
    let noted = statement(
        "UPDATE consumer_positions SET attempts = ?, interrupted = true, updated_at = clock_timestamp()
         WHERE consumer_group = ? AND topic = ? AND partition = ? AND next_offset = ?",
    )
    .bind::<Integer, _>(attempts)
    .bind::<Text, _>(&name.group)
    .bind::<Text, _>(&name.topic)
    .bind::<Integer, _>(name.partition)
    .bind::<BigInt, _>(offset)
    .execute(connection)
    .await?;
    expect_one(noted, name)
}

/// Puts a position anywhere and forgets its tries; answers where it was. Only behind [`super::leases::revoke`] in the
/// same transaction, so that no consumer goes on from where it was.
pub async fn reset(
    connection: &mut Connection,
    name: &PartitionName,
    to: i64,
) -> Result<Option<i64>, RepositoryError> {
    let before = read(connection, name).await?;
    statement(
        "INSERT INTO consumer_positions (consumer_group, topic, partition, next_offset) VALUES (?, ?, ?, ?)
         ON CONFLICT (consumer_group, topic, partition) DO UPDATE
         SET next_offset = excluded.next_offset, attempts = 0, interrupted = false, updated_at = clock_timestamp()",
    )
    .bind::<Text, _>(&name.group)
    .bind::<Text, _>(&name.topic)
    .bind::<Integer, _>(name.partition)
    .bind::<BigInt, _>(to)
    .execute(connection)
    .await?;
    Ok(before.map(|before| before.next_offset))
}

/// Removes all positions of a group. Only with its leases locked in the same transaction. Answers how many.
pub async fn forget(connection: &mut Connection, group: &str) -> Result<usize, RepositoryError> {
    let forgotten = statement("DELETE FROM consumer_positions WHERE consumer_group = ?")
        .bind::<Text, _>(group)
        .execute(connection)
        .await?;
    Ok(forgotten)
}

/// All positions, or those of one group.
pub async fn list(
    connection: &mut Connection,
    group: Option<&str>,
) -> Result<Vec<PositionRow>, RepositoryError> {
    let rows = statement(
        "SELECT consumer_group, topic, partition, next_offset, attempts, interrupted, updated_at FROM consumer_positions
         WHERE consumer_group = coalesce(?, consumer_group) ORDER BY consumer_group, topic, partition",
    )
    .bind::<diesel::sql_types::Nullable<Text>, _>(group)
    .get_results(connection)
    .await?;
    Ok(rows)
}

fn expect_one(rows: usize, name: &PartitionName) -> Result<(), RepositoryError> {
    match rows {
        1 => Ok(()),
        _ => Err(RepositoryError::PositionMoved(name.to_string())),
    }
}
