//! The broker that the database works with: its identity, and the number of partitions that each topic began with.
//!
//! Guarantees:
//! - There is one record at most. Roles that start at the same time agree on it: the first insert counts.
//! - [`hold`] and [`lock`] exclude each other. So what a role does under [`hold`] happens wholly before or wholly after a
//!   switch.
//!
//! Deliberately absent: the comparison with the configuration; `runtime` decides who is refused.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods, Insertable, NullableExpressionMethods, OptionalExtension, QueryDsl, Queryable,
    QueryableByName, Selectable, SelectableHelper, sql_types::BigInt, upsert::excluded,
};
use diesel_async::RunQueryDsl;

use super::{
    Connection, RepositoryError,
    functions::clock_timestamp,
    schema::{broker_identity, broker_topics},
    statement,
};
use crate::config::BrokerKind;

/// Which broker it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerIdentity {
    /// The kind of broker.
    pub kind: BrokerKind,
    /// The id of the Kafka cluster; empty for the PostgreSQL broker.
    pub cluster_id: String,
}

impl std::fmt::Display for BrokerIdentity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            BrokerKind::Kafka => write!(formatter, "kafka cluster {}", self.cluster_id),
            BrokerKind::Postgres => write!(formatter, "postgres"),
        }
    }
}

/// The broker that the database records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedBroker {
    /// Rises with each switch.
    pub generation: i64,
    /// Which broker it is.
    pub identity: BrokerIdentity,
    /// The broker before, in words. Its topics hold the events until `recorded_at`.
    pub moved_from: Option<String>,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// The role and the instance, or the user, that recorded it.
    pub recorded_by: String,
}

/// The recorded number of partitions of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = broker_topics)]
pub struct RecordedTopic {
    /// The topic.
    pub topic: String,
    /// The number of partitions.
    pub partitions: i32,
    /// The number before a switch accepted another one.
    pub partitions_before: Option<i32>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = broker_identity)]
struct Row {
    generation: i64,
    kind: String,
    cluster_id: String,
    moved_from: Option<String>,
    recorded_at: DateTime<Utc>,
    recorded_by: String,
}

impl TryFrom<Row> for RecordedBroker {
    type Error = RepositoryError;

    fn try_from(row: Row) -> Result<Self, RepositoryError> {
        let kind = BrokerKind::parse(&row.kind)
            .ok_or(RepositoryError::Corrupt { what: "kind of broker", detail: row.kind })?;
        Ok(Self {
            generation: row.generation,
            identity: BrokerIdentity { kind, cluster_id: row.cluster_id },
            moved_from: row.moved_from,
            recorded_at: row.recorded_at,
            recorded_by: row.recorded_by,
        })
    }
}

#[derive(Insertable)]
#[diesel(table_name = broker_topics)]
struct NewTopic<'a> {
    topic: &'a str,
    partitions: i32,
    recorded_by: &'a str,
}

/// Work that a switch of the broker would leave behind or interrupt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, QueryableByName)]
pub struct InFlight {
    /// Rows of the outbox.
    #[diesel(sql_type = BigInt)]
    pub outbox_rows: i64,
    /// Positions of consumer groups.
    #[diesel(sql_type = BigInt)]
    pub positions: i64,
    /// Transactions whose event is published, and that have neither an assessment nor a dead letter.
    #[diesel(sql_type = BigInt)]
    pub unassessed: i64,
}

/// Reads the record; None before the first relay or consumer.
pub async fn read(connection: &mut Connection) -> Result<Option<RecordedBroker>, RepositoryError> {
    let row = broker_identity::table.select(Row::as_select()).first(connection).await.optional()?;
    row.map(RecordedBroker::try_from).transpose()
}

/// Reads the record and keeps it until the database transaction ends: a switch waits, or this waits for the switch.
pub async fn hold(connection: &mut Connection) -> Result<Option<RecordedBroker>, RepositoryError> {
    let row =
        broker_identity::table.select(Row::as_select()).for_share().first(connection).await.optional()?;
    row.map(RecordedBroker::try_from).transpose()
}

/// Reads and locks the record until the database transaction ends. No role can take a lease before that.
pub async fn lock(connection: &mut Connection) -> Result<Option<RecordedBroker>, RepositoryError> {
    let row =
        broker_identity::table.select(Row::as_select()).for_update().first(connection).await.optional()?;
    row.map(RecordedBroker::try_from).transpose()
}

/// Records the broker unless one is recorded already. Returns whether it did.
pub async fn insert(
    connection: &mut Connection,
    identity: &BrokerIdentity,
    by: &str,
) -> Result<bool, RepositoryError> {
    let inserted = diesel::insert_into(broker_identity::table)
        .values((
            broker_identity::kind.eq(identity.kind.name()),
            broker_identity::cluster_id.eq(&identity.cluster_id),
            broker_identity::recorded_by.eq(by),
        ))
        .on_conflict_do_nothing()
        .execute(connection)
        .await?;
    Ok(inserted == 1)
}

/// Raises the generation, so that roles of the generation before get no leases.
pub async fn raise_generation(connection: &mut Connection) -> Result<(), RepositoryError> {
    diesel::update(broker_identity::table)
        .set(broker_identity::generation.eq(broker_identity::generation + 1))
        .execute(connection)
        .await?;
    Ok(())
}

/// Replaces the record by another broker and raises the generation. `moved_from` names the broker before.
pub async fn replace(
    connection: &mut Connection,
    identity: &BrokerIdentity,
    moved_from: &str,
    by: &str,
) -> Result<(), RepositoryError> {
    diesel::update(broker_identity::table)
        .set((
            broker_identity::generation.eq(broker_identity::generation + 1),
            broker_identity::kind.eq(identity.kind.name()),
            broker_identity::cluster_id.eq(&identity.cluster_id),
            broker_identity::moved_from.eq(moved_from),
            broker_identity::recorded_at.eq(clock_timestamp()),
            broker_identity::recorded_by.eq(by),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

/// Reads the recorded topics.
pub async fn topics(connection: &mut Connection) -> Result<Vec<RecordedTopic>, RepositoryError> {
    let rows = broker_topics::table.order(broker_topics::topic).select(RecordedTopic::as_select());
    Ok(rows.load(connection).await?)
}

/// Records the partitions of topics that are not recorded yet.
pub async fn insert_topics(
    connection: &mut Connection,
    partitions: &BTreeMap<String, i32>,
    by: &str,
) -> Result<(), RepositoryError> {
    diesel::insert_into(broker_topics::table)
        .values(new_topics(partitions, by))
        .on_conflict_do_nothing()
        .execute(connection)
        .await?;
    Ok(())
}

/// Replaces the recorded topics by the topics of another broker.
pub async fn replace_topics(
    connection: &mut Connection,
    partitions: &BTreeMap<String, i32>,
    by: &str,
) -> Result<(), RepositoryError> {
    diesel::delete(broker_topics::table).execute(connection).await?;
    insert_topics(connection, partitions, by).await
}

/// Records other numbers of partitions for topics of the same broker.
pub async fn change_topics(
    connection: &mut Connection,
    partitions: &BTreeMap<String, i32>,
    by: &str,
) -> Result<(), RepositoryError> {
    diesel::insert_into(broker_topics::table)
        .values(new_topics(partitions, by))
        .on_conflict(broker_topics::topic)
        .do_update()
        .set((
            broker_topics::partitions_before.eq(broker_topics::partitions.nullable()),
            broker_topics::partitions.eq(excluded(broker_topics::partitions)),
            broker_topics::recorded_at.eq(clock_timestamp()),
            broker_topics::recorded_by.eq(by),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

fn new_topics<'a>(partitions: &'a BTreeMap<String, i32>, by: &'a str) -> Vec<NewTopic<'a>> {
    let new = |(topic, partitions): (&'a String, &i32)| NewTopic {
        topic,
        partitions: *partitions,
        recorded_by: by,
    };
    partitions.iter().map(new).collect()
}

/// Counts what a switch of the broker would leave behind. Reads the whole ledger.
pub async fn in_flight(connection: &mut Connection) -> Result<InFlight, RepositoryError> {
    Ok(statement(include_str!("broker_identity/in_flight.sql")).get_result(connection).await?)
}
