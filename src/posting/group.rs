//! A group of requests, and the decisions on it.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};

use crate::{
    domain::{
        AccountId, AccountState, Decision, ExistingKeys, IdempotencyKey, Posting, PostingClock, Transaction,
        decide,
    },
    repository::ClockReading,
};

/// One request of a group.
#[derive(Clone, Debug)]
pub struct Request {
    /// The transaction to create.
    pub posting: Arc<Posting>,
    /// W3C trace context of the client's request. It travels with the event.
    pub traceparent: Option<String>,
}

/// Account states by account.
pub type AccountStates = HashMap<AccountId, AccountState>;

/// The result of a group.
#[derive(Debug)]
pub struct Posted {
    /// One decision for each request, in order.
    pub decisions: Vec<Decision>,
    /// The states of the group's accounts after it.
    pub accounts: AccountStates,
    /// The moment of the decisions.
    pub decided_at: DateTime<Utc>,
    /// The database's clock when the group was written. None if there was nothing to write.
    pub server_time: Option<ClockReading>,
}

/// Decides all requests of a group, in order, from the states and transactions that existed before it. `now` is the time
/// by the database's clock.
pub(super) fn decide_group(
    before: &AccountStates,
    existing: &ExistingKeys,
    group: &[Request],
    now: DateTime<Utc>,
) -> Posted {
    let mut accounts = before.clone();
    let postings: Vec<Arc<Posting>> = group.iter().map(|request| Arc::clone(&request.posting)).collect();
    let mut random = rand::random::<u64>;
    let mut clock = PostingClock { now, random: &mut random };
    let decisions = decide(&mut accounts, existing, &postings, &mut clock);
    Posted { decisions, accounts, decided_at: now, server_time: None }
}

/// Returns the account and the idempotency key of each request, in order.
pub(super) fn accounts_and_keys(group: &[Request]) -> (Vec<&str>, Vec<&str>) {
    group
        .iter()
        .map(|request| (request.posting.account_id.as_str(), request.posting.idempotency_key.as_str()))
        .unzip()
}

/// Returns each transaction with its account and idempotency key.
pub(super) fn by_key(
    transactions: Vec<Transaction>,
) -> impl Iterator<Item = ((AccountId, IdempotencyKey), Transaction)> {
    transactions.into_iter().map(|transaction| {
        let posting = &transaction.posting;
        ((posting.account_id.clone(), posting.idempotency_key.clone()), transaction)
    })
}
