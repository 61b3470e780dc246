//! Compares the ledger with the TransactionCreated events that were published. Call [`super::snapshot()`] first: it
//! creates the temporary tables.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use uuid::Uuid;

use super::{
    super::{Bind, Connection, RepositoryError, statement},
    findings::{Example, Findings, find},
};

/// The transaction in a published event, and the event's position. Amounts are in minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedTransaction {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The leader epoch (Kafka only).
    pub leader_epoch: Option<i32>,
    /// The account.
    pub account_id: String,
    /// The transaction's sequence number in the account.
    pub account_seq: i64,
    /// The id of the event and of the transaction.
    pub event_id: Uuid,
    /// The amount, positive for a credit.
    pub amount: i64,
    /// The balance of the account after the transaction.
    pub balance_after: i64,
    /// The currency of the account.
    pub currency: String,
    /// The time of the transaction.
    pub created_at: DateTime<Utc>,
    /// The counterparty.
    pub counterparty: Option<String>,
    /// The description.
    pub description: Option<String>,
    /// The metadata, as the text that the ledger keeps.
    pub metadata: Option<String>,
    /// The transaction that this one reverses.
    pub reverses: Option<Uuid>,
    /// Whether an operator published the event again.
    pub is_republished: bool,
}

/// An event whose transaction is missing or differs.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct TransactionMismatch {
    /// The offset of the event.
    #[diesel(sql_type = BigInt)]
    pub record_offset: i64,
    /// Whether a consumer group dead-lettered the event.
    #[diesel(sql_type = Bool)]
    pub dead_lettered: bool,
    #[diesel(sql_type = Text)]
    ids: String,
    #[diesel(sql_type = Text)]
    example: String,
}

impl TransactionMismatch {
    /// Returns the mismatch in words, with its ids.
    pub fn into_example(self) -> Example {
        Example::with_ids(self.example, &self.ids)
    }
}

/// Finds events whose transaction is missing or differs, in the order of their offsets.
pub async fn transaction_mismatches(
    connection: &mut Connection,
    events: &[PublishedTransaction],
) -> Result<Vec<TransactionMismatch>, RepositoryError> {
    let mismatches = statement(include_str!("topic/mismatches.sql"))
        .bind::<Array<Integer>, _>(column(events, |event| event.partition))
        .bind::<Array<BigInt>, _>(column(events, |event| event.offset))
        .bind::<Array<Text>, _>(column(events, |event| event.account_id.as_str()))
        .bind::<Array<BigInt>, _>(column(events, |event| event.account_seq))
        .bind::<Array<SqlUuid>, _>(column(events, |event| event.event_id))
        .bind::<Array<BigInt>, _>(column(events, |event| event.amount))
        .bind::<Array<BigInt>, _>(column(events, |event| event.balance_after))
        .bind::<Array<Text>, _>(column(events, |event| event.currency.as_str()))
        .bind::<Array<Timestamptz>, _>(column(events, |event| event.created_at))
        .bind::<Array<Nullable<Text>>, _>(column(events, |event| event.counterparty.as_deref()))
        .bind::<Array<Nullable<Text>>, _>(column(events, |event| event.description.as_deref()))
        .bind::<Array<Nullable<Text>>, _>(column(events, |event| event.metadata.as_deref()))
        .bind::<Array<Nullable<SqlUuid>>, _>(column(events, |event| event.reverses))
        .bind::<Array<Nullable<Integer>>, _>(column(events, |event| event.leader_epoch))
        .get_results(connection)
        .await?;
    Ok(mismatches)
}

/// Finds events that have neither an assessment nor a dead letter. `events` are below the position of `group`.
pub async fn unhandled_events(
    connection: &mut Connection,
    group: &str,
    events: &[PublishedTransaction],
) -> Result<Findings, RepositoryError> {
    find(
        connection,
        statement(include_str!("topic/unhandled_events.sql"))
            .bind::<Array<Integer>, _>(column(events, |event| event.partition))
            .bind::<Array<BigInt>, _>(column(events, |event| event.offset))
            .bind::<Array<Text>, _>(column(events, |event| event.account_id.as_str()))
            .bind::<Array<BigInt>, _>(column(events, |event| event.account_seq))
            .bind::<Array<SqlUuid>, _>(column(events, |event| event.event_id))
            .bind::<Text, _>(group)
            .bind::<Array<Nullable<Integer>>, _>(column(events, |event| event.leader_epoch)),
    )
    .await
}

/// A record that is not a TransactionCreated event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignRecord {
    /// The offset.
    pub offset: i64,
    /// The leader epoch (Kafka only).
    pub leader_epoch: Option<i32>,
}

/// Finds records without a dead letter. `records` are below the position of `group`.
pub async fn unhandled_records(
    connection: &mut Connection,
    group: &str,
    partition: i32,
    records: &[ForeignRecord],
) -> Result<Findings, RepositoryError> {
    find(
        connection,
        statement(include_str!("topic/unhandled_records.sql"))
            .bind::<Integer, _>(partition)
            .bind::<Array<BigInt>, _>(column(records, |record| record.offset))
            .bind::<Text, _>(group)
            .bind::<Array<Nullable<Integer>>, _>(column(records, |record| record.leader_epoch)),
    )
    .await
}

fn column<'a, T, Item>(items: &'a [Item], value: impl Fn(&'a Item) -> T) -> Vec<T> {
    items.iter().map(value).collect()
}

/// The range of an account's events in the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedAccount {
    /// The account.
    pub account_id: String,
    /// The lowest sequence number; above 1 only if retention removed the start of the partition.
    pub first_seq: i64,
    /// The highest sequence number plus 1.
    pub next_seq: i64,
}

/// A range of sequence numbers of an account, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceRange {
    /// The account.
    pub account_id: String,
    /// The first sequence number.
    pub from_seq: i64,
    /// The last sequence number.
    pub to_seq: i64,
}

/// Writes the range of each account's events into a temporary table.
pub async fn insert_published(
    connection: &mut Connection,
    accounts: &[PublishedAccount],
) -> Result<(), RepositoryError> {
    statement(include_str!("topic/insert_published.sql"))
        .bind::<Array<Text>, _>(column(accounts, |account| account.account_id.as_str()))
        .bind::<Array<BigInt>, _>(column(accounts, |account| account.first_seq))
        .bind::<Array<BigInt>, _>(column(accounts, |account| account.next_seq))
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes the gaps within these ranges into a temporary table.
pub async fn insert_gaps(connection: &mut Connection, gaps: &[SequenceRange]) -> Result<(), RepositoryError> {
    statement(include_str!("topic/insert_gaps.sql"))
        .bind::<Array<Text>, _>(column(gaps, |gap| gap.account_id.as_str()))
        .bind::<Array<BigInt>, _>(column(gaps, |gap| gap.from_seq))
        .bind::<Array<BigInt>, _>(column(gaps, |gap| gap.to_seq))
        .execute(connection)
        .await?;
    Ok(())
}

/// Gives the planner the statistics of the ranges and gaps.
pub async fn analyze_published(connection: &mut Connection) -> Result<(), RepositoryError> {
    connection.batch_execute("ANALYZE verify_published; ANALYZE verify_gaps").await?;
    Ok(())
}

/// Transactions of an account that are neither in the topic, nor in the outbox, nor dead-lettered.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct UnpublishedRows {
    /// The account.
    #[diesel(sql_type = Text)]
    pub account_id: String,
    /// The number of transactions.
    #[diesel(sql_type = BigInt)]
    pub rows: i64,
    /// The lowest sequence number.
    #[diesel(sql_type = BigInt)]
    pub first_seq: i64,
    /// The highest sequence number.
    #[diesel(sql_type = BigInt)]
    pub last_seq: i64,
    /// Whether the topic holds any event of the account.
    #[diesel(sql_type = Bool)]
    pub seen: bool,
}

/// Finds accounts whose last transactions are not published. Returns at most `limit` accounts after `after_account`, in
/// order.
pub async fn unpublished(
    connection: &mut Connection,
    after_account: &str,
    limit: i64,
) -> Result<Vec<UnpublishedRows>, RepositoryError> {
    let rows = statement(include_str!("topic/unpublished.sql"))
        .bind::<Text, _>(after_account)
        .bind::<BigInt, _>(limit)
        .get_results(connection)
        .await?;
    Ok(rows)
}

/// Finds transactions in gaps that wait in the outbox, although later transactions of the account are in the topic. Events
/// that an operator publishes again do not count.
pub async fn gaps_in_outbox(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("topic/gaps_in_outbox.sql"))).await
}

/// Finds transactions in gaps that are neither in the outbox nor dead-lettered.
pub async fn lost_in_gaps(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("topic/lost_in_gaps.sql"))).await
}

/// Finds events in the outbox whose transaction is missing.
pub async fn outbox_without_transaction(connection: &mut Connection) -> Result<Findings, RepositoryError> {
    find(connection, statement(include_str!("topic/outbox_without_transaction.sql"))).await
}
