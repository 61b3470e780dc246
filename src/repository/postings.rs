//! The write path: a group of postings in one commit.
//!
//! [`post_locked`] is the truth: it locks the group's accounts, reads which keys exist in a later statement, decides,
//! and writes. [`post_expected`] is the fast path: it decides from what a [`Poster`](super::poster::Poster) remembers
//! and sends the same writing statement by itself, which checks that every account still stands where it was
//! remembered and ends whole if one does not, or if a key exists. Nothing rests on the memory of accounts being right.
//!
//! No foreign wait happens between lock and commit, and no query runs per item.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use chrono::{DateTime, NaiveDate, SubsecRound, Utc};
use diesel::sql_types::{
    Array, BigInt, Binary, Date, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{Bind, Connection, RepositoryError, accounts, statement, transaction, transactions};
use crate::{
    domain::{
        AccountId, AccountState, Decision, ExistingKeys, IdempotencyKey, Posting, PostingClock, Transaction,
        decide,
    },
    event::{encode_transaction_created, lane_of},
};

/// One request of a group.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to post.
    pub posting: Arc<Posting>,
    /// W3C trace context of the request that caused it; travels with the event.
    pub traceparent: Option<String>,
}

/// Account states by account.
pub type AccountStates = HashMap<AccountId, AccountState>;

/// What became of a group.
#[derive(Debug)]
pub struct Posted {
    /// One for each request, in order.
    pub decisions: Vec<Decision>,
    /// The group's accounts after it.
    pub accounts: AccountStates,
}

/// Sets up a connection for posting: plans are made once and never fall back to scanning, whatever the statistics
/// say of tables that were empty a moment ago.
pub async fn prepare_writer(connection: &mut Connection) -> Result<(), RepositoryError> {
    let settings = [
        "SET enable_seqscan = off",
        "SET enable_hashjoin = off",
        "SET enable_mergejoin = off",
        "SET plan_cache_mode = force_generic_plan",
        "SET jit = off",
        "SET lock_timeout = '5s'",
    ];
    for setting in settings {
        diesel::sql_query(setting).execute(connection).await?;
    }
    Ok(())
}

/// Posts a group in one transaction, lock first.
pub async fn post_locked(connection: &mut Connection, group: &[Request]) -> Result<Posted, RepositoryError> {
    transaction("post", connection, async |connection: &mut Connection| {
        post_under_lock(connection, group).await
    })
    .await
}

/// Posts a group whole, lock first; where a request is not taken (refused, or its key used for another), nothing is
/// written and the error names the first such. For whoever must not go past it.
pub async fn post_whole(connection: &mut Connection, group: &[Request]) -> Result<Posted, RepositoryError> {
    transaction("post", connection, async |connection: &mut Connection| {
        let posted = post_under_lock(connection, group).await?;
        let taken = |decision: &Decision| matches!(decision, Decision::Create(_) | Decision::Replay(_));
        let refused = posted.decisions.iter().enumerate().find(|(_, decision)| !taken(decision));
        match refused {
            None => Ok(posted),
            Some((position, decision)) => {
                Err(RepositoryError::GroupRefused { position, decision: Box::new(decision.clone()) })
            }
        }
    })
    .await
}

pub(super) async fn existing_keys(
    connection: &mut Connection,
    group: &[Request],
) -> Result<ExistingKeys, RepositoryError> {
    let (account_ids, keys) = keys(group);
    let existing = transactions::existing(connection, &account_ids, &keys).await?;
    Ok(by_key(existing).collect())
}

/// The accounts and keys of a group, in order.
pub(super) fn keys(group: &[Request]) -> (Vec<&str>, Vec<&str>) {
    group
        .iter()
        .map(|request| (request.posting.account_id.as_str(), request.posting.idempotency_key.as_str()))
        .unzip()
}

pub(super) fn by_key(
    rows: Vec<Transaction>,
) -> impl Iterator<Item = ((AccountId, IdempotencyKey), Transaction)> {
    rows.into_iter().map(|row| ((row.posting.account_id.clone(), row.posting.idempotency_key.clone()), row))
}

async fn post_under_lock(connection: &mut Connection, group: &[Request]) -> Result<Posted, RepositoryError> {
    let first_currencies: BTreeMap<&str, &str> = group
        .iter()
        .rev()
        .map(|request| (request.posting.account_id.as_str(), request.posting.currency.code()))
        .collect();
    let (account_ids, currencies): (Vec<&str>, Vec<&str>) = first_currencies.into_iter().unzip();
    let before = accounts::open_and_lock(connection, &account_ids, &currencies).await?;

    let existing = existing_keys(connection, group).await?;
    let posted = decide_group(&before, &existing, group);
    write(connection, &before, &posted, group).await?;
    Ok(posted)
}

/// Posts a group in one statement, if `before` holds all of its accounts as they are and `existing` all rows that
/// stand under its keys. None: they do not, or a decision needs more to be sure of; nothing was written, and the
/// group must go the locked way.
pub async fn post_expected(
    connection: &mut Connection,
    before: &AccountStates,
    existing: &ExistingKeys,
    group: &[Request],
) -> Result<Option<Posted>, RepositoryError> {
    if !group.iter().all(|request| before.contains_key(&request.posting.account_id)) {
        return Ok(None);
    }
    let posted = decide_group(before, existing, group);
    // A refusal rests on what is remembered, and no written row would check it.
    if posted.decisions.iter().any(|decision| matches!(decision, Decision::Refused(_))) {
        return Ok(None);
    }
    match write(connection, before, &posted, group).await {
        Ok(()) => Ok(Some(posted)),
        Err(error) if error.is_stale_group() || error.is_conflict() => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn decide_group(before: &AccountStates, existing: &ExistingKeys, group: &[Request]) -> Posted {
    let mut accounts = before.clone();
    let postings: Vec<Arc<Posting>> = group.iter().map(|request| Arc::clone(&request.posting)).collect();
    let mut random = rand::random::<u64>;
    let mut clock = PostingClock { now: Utc::now().trunc_subsecs(6), random: &mut random };
    let decisions = decide(&mut accounts, existing, &postings, &mut clock);
    Posted { decisions, accounts }
}

/// The columns of a group's new rows, one array each, as `unnest` takes them.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) account_ids: Vec<&'a str>,
    pub(super) account_seqs: Vec<i64>,
    pub(super) ids: Vec<Uuid>,
    pub(super) amounts: Vec<i64>,
    pub(super) balances_after: Vec<i64>,
    pub(super) created_ats: Vec<DateTime<Utc>>,
    pub(super) reverses: Vec<Option<Uuid>>,
    pub(super) keys: Vec<&'a str>,
    pub(super) counterparties: Vec<Option<&'a str>>,
    pub(super) descriptions: Vec<Option<&'a str>>,
    pub(super) metadata: Vec<Option<&'a str>>,
    days: BTreeSet<NaiveDate>,
}

impl<'a> Columns<'a> {
    pub(super) fn push(&mut self, row: &'a Transaction) {
        let posting = &row.posting;
        self.account_ids.push(posting.account_id.as_str());
        self.account_seqs.push(row.account_seq);
        self.ids.push(row.id);
        self.amounts.push(posting.signed_minor());
        self.balances_after.push(row.balance_after);
        self.created_ats.push(row.created_at);
        self.reverses.push(posting.reverses);
        self.keys.push(posting.idempotency_key.as_str());
        self.counterparties.push(posting.counterparty.as_deref());
        self.descriptions.push(posting.description.as_deref());
        self.metadata.push(posting.metadata.as_ref().map(|metadata| metadata.as_json()));
        self.days.insert(row.created_at.date_naive());
    }
}

/// What tells of a new row.
struct Event<'a> {
    lane: i16,
    row: &'a Transaction,
    value: Vec<u8>,
    traceparent: Option<&'a str>,
}

impl<'a> Event<'a> {
    fn of(row: &'a Transaction, traceparent: Option<&'a str>) -> Result<Self, RepositoryError> {
        let value = encode_transaction_created(row)
            .map_err(|error| RepositoryError::Corrupt { what: "event", detail: error.to_string() })?;
        Ok(Self { lane: lane_of(row.posting.account_id.as_str().as_bytes()), row, value, traceparent })
    }
}

/// The columns of a group's events.
#[derive(Default)]
struct Outgoing<'a> {
    lanes: Vec<i16>,
    keys: Vec<&'a [u8]>,
    values: Vec<Vec<u8>>,
    event_ids: Vec<Uuid>,
    created_ats: Vec<DateTime<Utc>>,
    traceparents: Vec<Option<&'a str>>,
}

impl<'a> Outgoing<'a> {
    /// Lane by lane, each in the order of the group: so a lane's rows lie side by side in the table, and whoever reads
    /// and removes them a lane at a time finds many on a page.
    fn of(mut events: Vec<Event<'a>>) -> Self {
        events.sort_by_key(|event| event.lane);
        let mut columns = Self::default();
        for Event { lane, row, value, traceparent } in events {
            columns.lanes.push(lane);
            columns.keys.push(row.posting.account_id.as_str().as_bytes());
            columns.values.push(value);
            columns.event_ids.push(row.id);
            columns.created_ats.push(row.created_at);
            columns.traceparents.push(traceparent);
        }
        columns
    }
}

/// The columns of the accounts that moved, sorted by account.
#[derive(Default)]
struct Moves<'a> {
    account_ids: Vec<&'a str>,
    expected_seqs: Vec<i64>,
    expected_balances: Vec<i64>,
    min_balances: Vec<Option<i64>>,
    balances: Vec<i64>,
    account_seqs: Vec<i64>,
    last_created_ats: Vec<Option<DateTime<Utc>>>,
}

/// Account ids in their order, each once. They are spread over memory, so comparing them is dear; most are told apart by
/// their first bytes, which are compared in place. An id has no zero byte, so this is the order of the ids themselves.
struct SortedIds<'a>(Vec<(u128, &'a str)>);

impl<'a> SortedIds<'a> {
    fn of(account_ids: &[&'a str]) -> Self {
        let mut ids: Vec<(u128, &str)> = account_ids.iter().map(|id| (first_bytes(id), *id)).collect();
        ids.sort_unstable();
        ids.dedup();
        Self(ids)
    }
}

fn first_bytes(account_id: &str) -> u128 {
    let mut first = [0; size_of::<u128>()];
    for (place, byte) in first.iter_mut().zip(account_id.bytes()) {
        *place = byte;
    }
    u128::from_be_bytes(first)
}

fn moves<'a>(before: &AccountStates, after: &'a AccountStates, touched: &SortedIds<'_>) -> Moves<'a> {
    let mut moves = Moves::default();
    for (_, account_id) in &touched.0 {
        let (Some(old), Some((key, new))) = (before.get(*account_id), after.get_key_value(*account_id))
        else {
            continue;
        };
        moves.account_ids.push(key.as_str());
        moves.expected_seqs.push(old.account_seq);
        moves.expected_balances.push(old.balance);
        moves.min_balances.push(old.min_balance);
        moves.balances.push(new.balance);
        moves.account_seqs.push(new.account_seq);
        moves.last_created_ats.push(new.last_created_at);
    }
    moves
}

/// Accounts moved, rows, events and marks of a group in one statement. Its binds are the accounts' columns of [`Moves`],
/// the rows' of [`Columns`], the events' of [`Outgoing`], the days, and how many accounts must move.
const WRITE: &str = "WITH moved AS (
           UPDATE accounts a
           SET balance = m.balance, account_seq = m.account_seq, last_created_at = m.last_created_at
           FROM (SELECT unnest(?) AS account_id, unnest(?) AS expected_seq, unnest(?) AS expected_balance,
                        unnest(?) AS min_balance, unnest(?) AS balance, unnest(?) AS account_seq,
                        unnest(?) AS last_created_at) m
           WHERE a.account_id = m.account_id AND a.account_seq = m.expected_seq AND a.balance = m.expected_balance
             AND a.min_balance IS NOT DISTINCT FROM m.min_balance
           RETURNING 1
         ), posted AS (
           INSERT INTO transactions (account_id, account_seq, id, amount, balance_after, created_at, reverses,
                                     idempotency_key, counterparty, description, metadata)
           SELECT unnest(?), unnest(?), unnest(?), unnest(?), unnest(?), unnest(?), unnest(?),
                  unnest(?), unnest(?), unnest(?), unnest(?)::json
         ), announced AS (
           INSERT INTO outbox (lane, topic, key, value, event_id, event_type, created_at, traceparent)
           SELECT unnest(?), 'transactions.v1', unnest(?), unnest(?), unnest(?), 'TransactionCreated.v1',
                  unnest(?), unnest(?)
         ), marked AS (
           INSERT INTO fact_marks (day) SELECT unnest(?)
         )
         SELECT CASE WHEN (SELECT count(*) FROM moved) = ? THEN 0 ELSE ledger_stale_group() END";

/// Writes all new rows of a group with one statement, which fails whole unless every account still is where `before`
/// has it. The balance is compared although it follows from the sequence number: that holds within one history, and
/// a restore or a failover may have put another in its place. `outbox.id` is drawn here, after the account's row is
/// locked or checked, for each account in the order of the group.
async fn write(
    connection: &mut Connection,
    before: &AccountStates,
    posted: &Posted,
    group: &[Request],
) -> Result<(), RepositoryError> {
    let mut columns = Columns::default();
    let mut events = Vec::new();
    for (decision, request) in posted.decisions.iter().zip(group) {
        if let Decision::Create(row) = decision {
            columns.push(row);
            events.push(Event::of(row, request.traceparent.as_deref())?);
        }
    }
    if columns.ids.is_empty() {
        return Ok(());
    }
    let touched = SortedIds::of(&columns.account_ids);
    let moves = moves(before, &posted.accounts, &touched);
    let expected = i64::try_from(touched.0.len()).unwrap_or(i64::MAX);
    let outgoing = Outgoing::of(events);
    let days: Vec<NaiveDate> = columns.days.iter().copied().collect();
    statement(WRITE)
        .bind::<Array<Text>, _>(moves.account_ids)
        .bind::<Array<BigInt>, _>(moves.expected_seqs)
        .bind::<Array<BigInt>, _>(moves.expected_balances)
        .bind::<Array<Nullable<BigInt>>, _>(moves.min_balances)
        .bind::<Array<BigInt>, _>(moves.balances)
        .bind::<Array<BigInt>, _>(moves.account_seqs)
        .bind::<Array<Nullable<Timestamptz>>, _>(moves.last_created_ats)
        .bind::<Array<Text>, _>(columns.account_ids)
        .bind::<Array<BigInt>, _>(columns.account_seqs)
        .bind::<Array<SqlUuid>, _>(columns.ids)
        .bind::<Array<BigInt>, _>(columns.amounts)
        .bind::<Array<BigInt>, _>(columns.balances_after)
        .bind::<Array<Timestamptz>, _>(columns.created_ats)
        .bind::<Array<Nullable<SqlUuid>>, _>(columns.reverses)
        .bind::<Array<Text>, _>(columns.keys)
        .bind::<Array<Nullable<Text>>, _>(columns.counterparties)
        .bind::<Array<Nullable<Text>>, _>(columns.descriptions)
        .bind::<Array<Nullable<Text>>, _>(columns.metadata)
        .bind::<Array<SmallInt>, _>(outgoing.lanes)
        .bind::<Array<Binary>, _>(outgoing.keys)
        .bind::<Array<Binary>, _>(outgoing.values)
        .bind::<Array<SqlUuid>, _>(outgoing.event_ids)
        .bind::<Array<Timestamptz>, _>(outgoing.created_ats)
        .bind::<Array<Nullable<Text>>, _>(outgoing.traceparents)
        .bind::<Array<Date>, _>(days)
        .bind::<BigInt, _>(expected)
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As the locked way has PostgreSQL lock them.
        #[test]
        fn account_ids_are_sorted_by_their_bytes_and_each_is_there_once(
            ids in proptest::collection::vec("(acct-|a-long-prefix-of-accounts-)?[!-~]{1,6}", 0..60),
        ) {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let sorted: Vec<&str> = SortedIds::of(&ids).0.into_iter().map(|(_, id)| id).collect();
            let expected: Vec<&str> = BTreeSet::from_iter(ids).into_iter().collect();
            prop_assert_eq!(sorted, expected);
        }
    }
}
