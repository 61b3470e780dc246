//! The statement that writes a group of transactions, and its columns. The room `posting` fills them.
//!
//! Each bind is an array with one element for each row, as `unnest` takes it.

use std::time::Instant;

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Binary, Date, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{Bind, ClockReading, Connection, RepositoryError, mark_columns::MarkColumns, statement};
use crate::domain::{AccountId, AccountState, FactMark, Transaction};

/// Everything that a group writes.
pub struct GroupColumns<'a> {
    /// The accounts to update, in ascending order.
    pub accounts: AccountColumns<'a>,
    /// How many accounts the group's transactions touch. The statement fails unless it updates this many.
    pub accounts_touched: i64,
    /// The new transactions, in the order of the group.
    pub transactions: TransactionColumns<'a>,
    /// Their events, in the order in which they get their outbox ids.
    pub events: EventColumns<'a>,
    /// The ranges of the new transactions, whose facts must be written.
    pub marks: Vec<FactMark>,
    /// The moment of the decisions, by the database's clock as the writer knows it.
    pub decided_at: DateTime<Utc>,
}

/// The states of accounts before and after a group.
#[derive(Default)]
pub struct AccountColumns<'a> {
    account_ids: Vec<&'a str>,
    expected_seqs: Vec<i64>,
    expected_balances: Vec<i64>,
    min_balances: Vec<Option<i64>>,
    balances: Vec<i64>,
    account_seqs: Vec<i64>,
    last_created_ats: Vec<Option<DateTime<Utc>>>,
}

impl<'a> AccountColumns<'a> {
    /// Adds an account.
    pub fn push(&mut self, account_id: &'a AccountId, before: &AccountState, after: &AccountState) {
        self.account_ids.push(account_id.as_str());
        self.expected_seqs.push(before.account_seq);
        self.expected_balances.push(before.balance);
        self.min_balances.push(before.min_balance);
        self.balances.push(after.balance);
        self.account_seqs.push(after.account_seq);
        self.last_created_ats.push(after.last_created_at);
    }
}

/// New transactions.
#[derive(Default)]
pub struct TransactionColumns<'a> {
    pub(super) account_ids: Vec<&'a str>,
    pub(super) account_seqs: Vec<i64>,
    pub(super) ids: Vec<Uuid>,
    pub(super) amounts: Vec<i64>,
    pub(super) balances_after: Vec<i64>,
    pub(super) created_ats: Vec<DateTime<Utc>>,
    pub(super) reverses: Vec<Option<Uuid>>,
    pub(super) idempotency_keys: Vec<&'a str>,
    pub(super) counterparties: Vec<Option<&'a str>>,
    pub(super) descriptions: Vec<Option<&'a str>>,
    pub(super) metadata: Vec<Option<&'a str>>,
}

impl<'a> TransactionColumns<'a> {
    /// Adds a transaction.
    pub fn push(&mut self, transaction: &'a Transaction) {
        let posting = &transaction.posting;
        self.account_ids.push(posting.account_id.as_str());
        self.account_seqs.push(transaction.account_seq);
        self.ids.push(transaction.id);
        self.amounts.push(posting.signed_minor());
        self.balances_after.push(transaction.balance_after);
        self.created_ats.push(transaction.created_at);
        self.reverses.push(posting.reverses);
        self.idempotency_keys.push(posting.idempotency_key.as_str());
        self.counterparties.push(posting.counterparty.as_deref());
        self.descriptions.push(posting.description.as_deref());
        self.metadata.push(posting.metadata.as_ref().map(|metadata| metadata.as_json()));
    }

    /// Returns whether there is no transaction.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns the account of each transaction.
    pub fn account_ids(&self) -> &[&'a str] {
        &self.account_ids
    }
}

/// The `TransactionCreated` events of new transactions.
#[derive(Default)]
pub struct EventColumns<'a> {
    lanes: Vec<i16>,
    keys: Vec<&'a [u8]>,
    values: Vec<Vec<u8>>,
    event_ids: Vec<Uuid>,
    created_ats: Vec<DateTime<Utc>>,
    traceparents: Vec<Option<&'a str>>,
}

impl<'a> EventColumns<'a> {
    /// Adds the event of a transaction. `value` is the encoded event.
    pub fn push(
        &mut self,
        lane: i16,
        transaction: &'a Transaction,
        value: Vec<u8>,
        traceparent: Option<&'a str>,
    ) {
        self.lanes.push(lane);
        self.keys.push(transaction.posting.account_id.as_str().as_bytes());
        self.values.push(value);
        self.event_ids.push(transaction.id);
        self.created_ats.push(transaction.created_at);
        self.traceparents.push(traceparent);
    }
}

#[derive(QueryableByName)]
struct WrittenGroup {
    #[diesel(sql_type = Timestamptz)]
    server_time: DateTime<Utc>,
}

/// Updates the accounts of a group and inserts its transactions, outbox rows and fact marks. Returns the time by the
/// server's clock. Fails as a whole with
///
/// - [`RepositoryError::is_stale_group`] if an account differs from its expected state or an idempotency key exists;
/// - [`RepositoryError::is_clock_difference`] if `decided_at` is more than a second ahead of the server's clock, or more
///   than ten seconds behind it.
pub async fn write_group(
    connection: &mut Connection,
    group: GroupColumns<'_>,
) -> Result<ClockReading, RepositoryError> {
    let GroupColumns { accounts, accounts_touched, transactions, events, marks, decided_at } = group;
    let marks = MarkColumns::of(&marks);
    let asked = Instant::now();
    // Not `get_result`: it returns at the first row, and PostgreSQL commits after it. A session that is ended between the two
    // sends the row and then the error.
    let written: Vec<WrittenGroup> = statement(include_str!("postings/write_group.sql"))
        .bind::<Array<Text>, _>(accounts.account_ids)
        .bind::<Array<BigInt>, _>(accounts.expected_seqs)
        .bind::<Array<BigInt>, _>(accounts.expected_balances)
        .bind::<Array<Nullable<BigInt>>, _>(accounts.min_balances)
        .bind::<Array<BigInt>, _>(accounts.balances)
        .bind::<Array<BigInt>, _>(accounts.account_seqs)
        .bind::<Array<Nullable<Timestamptz>>, _>(accounts.last_created_ats)
        .bind::<Array<Text>, _>(transactions.account_ids)
        .bind::<Array<BigInt>, _>(transactions.account_seqs)
        .bind::<Array<SqlUuid>, _>(transactions.ids)
        .bind::<Array<BigInt>, _>(transactions.amounts)
        .bind::<Array<BigInt>, _>(transactions.balances_after)
        .bind::<Array<Timestamptz>, _>(transactions.created_ats)
        .bind::<Array<Nullable<SqlUuid>>, _>(transactions.reverses)
        .bind::<Array<Text>, _>(transactions.idempotency_keys)
        .bind::<Array<Nullable<Text>>, _>(transactions.counterparties)
        .bind::<Array<Nullable<Text>>, _>(transactions.descriptions)
        .bind::<Array<Nullable<Text>>, _>(transactions.metadata)
        .bind::<Array<SmallInt>, _>(events.lanes)
        .bind::<Array<Binary>, _>(events.keys)
        .bind::<Array<Binary>, _>(events.values)
        .bind::<Array<SqlUuid>, _>(events.event_ids)
        .bind::<Array<Timestamptz>, _>(events.created_ats)
        .bind::<Array<Nullable<Text>>, _>(events.traceparents)
        .bind::<Array<Date>, _>(marks.days)
        .bind::<Timestamptz, _>(decided_at)
        .bind::<BigInt, _>(accounts_touched)
        .bind::<Array<SqlUuid>, _>(marks.begin_ids)
        .bind::<Array<SqlUuid>, _>(marks.end_ids)
        .get_results(connection)
        .await?;
    let written = written.into_iter().next().ok_or(diesel::result::Error::NotFound)?;
    Ok(ClockReading { shown: written.server_time, asked, answered: Instant::now() })
}
