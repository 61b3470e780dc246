//! Positions of consumer groups: the next offset of each partition, the log that it belongs to, and how often the record
//! there was attempted.
//!
//! Guarantees: a consumer moves a position only from the offset where it expects it to be, so a position never goes
//! back and two owners cannot both move it. Only [`reset`] goes to any offset, and only [`reset`] ends a halt; it belongs
//! to the operator. All functions run inside the caller's database transaction, together with the lease's fence and the
//! results of the records.

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, Insertable, NullableExpressionMethods, OptionalExtension, QueryDsl, Queryable,
    Selectable, SelectableHelper,
    sql_types::{BigInt, Bool, Integer, Nullable, Text},
    upsert::excluded,
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Queryable, Selectable)]
#[diesel(table_name = consumer_positions)]
pub struct Position {
    /// The first offset that is not handled.
    pub next_offset: i64,
    /// How often the record there was attempted alone.
    pub attempts: i32,
    /// Whether an owner began its first batch here and never ended it.
    pub interrupted: bool,
    /// The id of the log that the offset belongs to. None: the next owner takes the id that it finds.
    pub log_id: Option<Uuid>,
    /// The leader epoch of the record before the offset (Kafka only). None: not known.
    pub leader_epoch: Option<i32>,
}

/// Why a partition waits for an operator, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    /// When the partition was halted.
    pub halted_at: DateTime<Utc>,
    /// The reason as text.
    pub reason: String,
}

/// A move of a position, over records that are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PositionMove {
    /// The old offset.
    pub from: i64,
    /// The new offset.
    pub to: i64,
    /// Whether the records from `to` on are still attempted one by one.
    pub interrupted: bool,
    /// The leader epoch of the record before `to`.
    pub leader_epoch: Option<i32>,
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
    /// When the partition was halted, if it is halted.
    pub halted_at: Option<DateTime<Utc>>,
    /// Why it was halted.
    pub halt_reason: Option<String>,
}

#[derive(Insertable)]
#[diesel(table_name = consumer_positions)]
struct NewPosition<'a> {
    consumer_group: &'a str,
    topic: &'a str,
    partition: i32,
    next_offset: i64,
    log_id: Option<Uuid>,
}

impl<'a> NewPosition<'a> {
    fn new(name: &'a PartitionName, next_offset: i64, log_id: Option<Uuid>) -> Self {
        let (consumer_group, topic, partition) = name.key();
        Self { consumer_group, topic, partition, next_offset, log_id }
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

/// Returns why the partition is halted, or None if it is not.
pub async fn halt(
    connection: &mut Connection,
    name: &PartitionName,
) -> Result<Option<Halt>, RepositoryError> {
    let found: Option<(Option<DateTime<Utc>>, Option<String>)> = consumer_positions::table
        .find(name.key())
        .select((consumer_positions::halted_at, consumer_positions::halt_reason))
        .first(connection)
        .await
        .optional()?;
    Ok(found.and_then(|(halted_at, reason)| Some(Halt { halted_at: halted_at?, reason: reason? })))
}

/// Halts the partition at its position.
pub async fn halt_here(
    connection: &mut Connection,
    name: &PartitionName,
    reason: &str,
) -> Result<(), RepositoryError> {
    let halted = diesel::update(consumer_positions::table.find(name.key()))
        .set((
            consumer_positions::halted_at.eq(clock_timestamp().nullable()),
            consumer_positions::halt_reason.eq(reason),
        ))
        .execute(connection)
        .await?;
    expect_one(halted, name)
}

/// Notes which log a position at `offset` belongs to, if that is not known.
pub async fn adopt_log(
    connection: &mut Connection,
    name: &PartitionName,
    offset: i64,
    log_id: Uuid,
) -> Result<(), RepositoryError> {
    let adopted = diesel::update(consumer_positions::table.find(name.key()))
        .filter(consumer_positions::next_offset.eq(offset))
        .filter(consumer_positions::log_id.is_null())
        .set(consumer_positions::log_id.eq(log_id))
        .execute(connection)
        .await?;
    expect_one(adopted, name)
}

/// Creates the position of a group that is new to the partition. Does not change an existing position.
pub async fn create(
    connection: &mut Connection,
    name: &PartitionName,
    first_offset: i64,
    log_id: Option<Uuid>,
) -> Result<(), RepositoryError> {
    diesel::insert_into(consumer_positions::table)
        .values(NewPosition::new(name, first_offset, log_id))
        .on_conflict_do_nothing()
        .execute(connection)
        .await?;
    Ok(())
}

/// Moves a position forward. `interrupted` stays set while records are attempted one by one.
pub async fn advance(
    connection: &mut Connection,
    name: &PartitionName,
    PositionMove { from, to, interrupted, leader_epoch }: PositionMove,
) -> Result<(), RepositoryError> {
    // diesel prepares a typed UPDATE again at each use. This one runs in every commit of a consumer.
    let moved = statement(include_str!("positions/advance.sql"))
        .bind::<Text, _>(&name.group)
        .bind::<Text, _>(&name.topic)
        .bind::<Integer, _>(name.partition)
        .bind::<BigInt, _>(from)
        .bind::<BigInt, _>(to)
        .bind::<Bool, _>(interrupted)
        .bind::<Nullable<Integer>, _>(leader_epoch)
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

/// Sets a position to any offset of the log `log_id`, clears its attempts and its halt, and returns the old position. Call
/// [`super::leases::revoke`] before it in the same database transaction, so that no consumer continues from the old offset.
pub async fn reset(
    connection: &mut Connection,
    name: &PartitionName,
    to: i64,
    log_id: Option<Uuid>,
) -> Result<Option<Position>, RepositoryError> {
    let before = read(connection, name).await?;
    diesel::insert_into(consumer_positions::table)
        .values(NewPosition::new(name, to, log_id))
        .on_conflict((
            consumer_positions::consumer_group,
            consumer_positions::topic,
            consumer_positions::partition,
        ))
        .do_update()
        .set((
            consumer_positions::next_offset.eq(excluded(consumer_positions::next_offset)),
            consumer_positions::log_id.eq(excluded(consumer_positions::log_id)),
            consumer_positions::leader_epoch.eq(None::<i32>),
            consumer_positions::halted_at.eq(None::<DateTime<Utc>>),
            consumer_positions::halt_reason.eq(None::<String>),
            consumer_positions::attempts.eq(0),
            consumer_positions::interrupted.eq(false),
            consumer_positions::updated_at.eq(clock_timestamp()),
        ))
        .execute(connection)
        .await?;
    Ok(before)
}

/// Deletes all positions of a group and returns their number. Lock the group's leases before it in the same database
/// transaction.
pub async fn forget(connection: &mut Connection, group: &str) -> Result<usize, RepositoryError> {
    let positions = consumer_positions::table.filter(consumer_positions::consumer_group.eq(group));
    Ok(diesel::delete(positions).execute(connection).await?)
}

/// Deletes all positions of all groups and returns their number. For a switch of the broker, which locks all leases.
pub async fn forget_all(connection: &mut Connection) -> Result<usize, RepositoryError> {
    Ok(diesel::delete(consumer_positions::table).execute(connection).await?)
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
