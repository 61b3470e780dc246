//! A group of requests, and the decisions on it.

use std::{collections::HashMap, sync::Arc};

use chrono::{SubsecRound, Utc};

use crate::domain::{
    AccountId, AccountState, Decision, ExistingKeys, IdempotencyKey, Posting, PostingClock, Transaction,
    decide,
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
}

/// Decides all requests of a group, in order, from the states and transactions that existed before it.
pub(super) fn decide_group(before: &AccountStates, existing: &ExistingKeys, group: &[Request]) -> Posted {
    let mut accounts = before.clone();
    let postings: Vec<Arc<Posting>> = group.iter().map(|request| Arc::clone(&request.posting)).collect();
    let mut random = rand::random::<u64>;
    let mut clock = PostingClock { now: Utc::now().trunc_subsecs(6), random: &mut random };
    let decisions = decide(&mut accounts, existing, &postings, &mut clock);
    Posted { decisions, accounts }
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
