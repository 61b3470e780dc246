//! Positions of consumer groups: the next offset of each partition, and how often the record there was attempted.
//!
//! Guarantees: a consumer moves a position only from the offset where it expects it to be, so a position never goes
//! back and two owners cannot both move it. Only [`reset`] goes to any offset; it belongs to the operator. All
//! functions run inside the caller's database transaction, together with the lease's fence and the results of the
//! records.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, Selectable, SelectableHelper,
    sql_types::{BigInt, Bool, Integer, Text},
    upsert::excluded,
};
use diesel_async::RunQueryDsl;

use super::{
    Bind, Connection, RepositoryError, functions::clock_timestamp, schema::consumer_positions, statement,
};

/// A partition as one consumer group reads it.
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
    /// Returns the name of the lease that a process must hold to move the position.
    pub fn lease_name(&self) -> String {
        format!("consume-risk/{self}")
    }

    fn key(&self) -> (&str, &str, i32) {
        (&self.group, &self.topic, self.partition)
    }
}

impl std::fmt::Display for PartitionName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}/{}", self.group, self.topic, self.partition)
    }
}

/// The position of a group in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = consumer_positions)]
pub struct Position {
    /// The first offset that is not handled.
    pub next_offset: i64,
    /// How often the record there was attempted alone.
    pub attempts: i32,
    /// Whether an owner began its first batch here and never ended it.
    pub interrupted: bool,
}

/// A position with its key and its time.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = consumer_positions)]
pub struct PositionRow {
    /// The consumer group.
    pub consumer_group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset that is not handled.
    pub next_offset: i64,
    /// How often the record there was attempted alone.
    pub attempts: i32,
    /// Whether an owner began its first batch here and never ended it.
    pub interrupted: bool,
    /// When the position last changed.
    pub updated_at: DateTime<Utc>,
}

#[derive(Insertable)]
#[diesel(table_name = consumer_positions)]
struct NewPosition<'a> {
    consumer_group: &'a str,
    topic: &'a str,
    partition: i32,
    next_offset: i64,
}

impl<'a> NewPosition<'a> {
    fn new(name: &'a PartitionName, next_offset: i64) -> Self {
        let (consumer_group, topic, partition) = name.key();
        Self { consumer_group, topic, partition, next_offset }
    }
}

/// Reads a position.
pub async fn read(
    connection: &mut Connection,
    name: &PartitionName,
) -> Result<Option<Position>, RepositoryError> {
    let position = consumer_positions::table
        .find(name.key())
        .select(Position::as_select())
        .first(connection)
        .await
        .optional()?;
    Ok(position)
}

/// Creates the position of a group that is new to the partition. Does not change an existing position.
pub async fn create(
    connection: &mut Connection,
    name: &PartitionName,
    first_offset: i64,
) -> Result<(), RepositoryError> {
    diesel::insert_into(consumer_positions::table)
        .values(NewPosition::new(name, first_offset))
        .on_conflict_do_nothing()
        .execute(connection)
        .await?;
    Ok(())
}

/// Moves a position forward. `interrupted` stays set while records are attempted one by one.
pub async fn advance(
    connection: &mut Connection,
    name: &PartitionName,
    from: i64,
    to: i64,
    interrupted: bool,
) -> Result<(), RepositoryError> {
    // diesel prepares a typed UPDATE again at each use. This one runs in every commit of a consumer.
    let moved = statement(include_str!("positions/advance.sql"))
        .bind::<Text, _>(&name.group)
        .bind::<Text, _>(&name.topic)
        .bind::<Integer, _>(name.partition)
        .bind::<BigInt, _>(from)
        .bind::<BigInt, _>(to)
        .bind::<Bool, _>(interrupted)
        .execute(connection)
        .await?;
    expect_one(moved, name)
}

/// Records that an attempt at the record or batch at `offset` is about to start, and sets `attempts`. Commit this
/// before the attempt, so that it survives an attempt that ends the process.
pub async fn note_attempt(
    connection: &mut Connection,
    name: &PartitionName,
    offset: i64,
    attempts: i32,
) -> Result<(), RepositoryError> {
    let noted = diesel::update(consumer_positions::table.find(name.key()))
        .filter(consumer_positions::next_offset.eq(offset))
        .set((
            consumer_positions::attempts.eq(attempts),
            consumer_positions::interrupted.eq(true),
            consumer_positions::updated_at.eq(clock_timestamp()),
        ))
        .execute(connection)
        .await?;
    expect_one(noted, name)
}

/// Sets a position to any offset, clears its attempts, and returns the old offset. Call [`super::leases::revoke`]
/// before it in the same database transaction, so that no consumer continues from the old offset.
pub async fn reset(
    connection: &mut Connection,
    name: &PartitionName,
    to: i64,
) -> Result<Option<i64>, RepositoryError> {
    let before = read(connection, name).await?;
    diesel::insert_into(consumer_positions::table)
        .values(NewPosition::new(name, to))
        .on_conflict((
            consumer_positions::consumer_group,
            consumer_positions::topic,
            consumer_positions::partition,
        ))
        .do_update()
        .set((
            consumer_positions::next_offset.eq(excluded(consumer_positions::next_offset)),
            consumer_positions::attempts.eq(0),
            consumer_positions::interrupted.eq(false),
            consumer_positions::updated_at.eq(clock_timestamp()),
        ))
        .execute(connection)
        .await?;
    Ok(before.map(|before| before.next_offset))
}

/// Deletes all positions of a group and returns their number. Lock the group's leases before it in the same database
/// transaction.
pub async fn forget(connection: &mut Connection, group: &str) -> Result<usize, RepositoryError> {
    let positions = consumer_positions::table.filter(consumer_positions::consumer_group.eq(group));
    Ok(diesel::delete(positions).execute(connection).await?)
}

/// Returns all positions, or the positions of one group.
pub async fn list(
    connection: &mut Connection,
    group: Option<&str>,
) -> Result<Vec<PositionRow>, RepositoryError> {
    let mut positions = consumer_positions::table
        .order((consumer_positions::consumer_group, consumer_positions::topic, consumer_positions::partition))
        .select(PositionRow::as_select())
        .into_boxed();
    if let Some(group) = group {
        positions = positions.filter(consumer_positions::consumer_group.eq(group));
    }
    Ok(positions.load(connection).await?)
}

fn expect_one(rows: usize, name: &PartitionName) -> Result<(), RepositoryError> {
    match rows {
        1 => Ok(()),
        _ => Err(RepositoryError::PositionMoved(name.to_string())),
    }
}
