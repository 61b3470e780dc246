//! The posting decision: given accounts under lock, the keys already used and a group of requests, what happens to
//! each. Pure and total; the caller must handle every [`Decision`].
//!
//! Requests are decided in order, each seeing the effect of those before it in the same group, so a group behaves
//! exactly as the same requests posted one after the other.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    AMOUNT_MINOR_MAX, AccountId, AccountState, Currency, Direction, IdempotencyKey, Posting,
    TRANSACTION_ID_SEQS, Transaction, transaction_id,
};

/// Rows already in the ledger under the keys that a group uses.
pub type ExistingKeys = HashMap<(AccountId, IdempotencyKey), Transaction>;

/// The only things a decision takes from outside the ledger: the time and randomness for ids.
pub struct PostingClock<'a> {
    /// The moment of the decision, truncated to microseconds as PostgreSQL keeps it.
    pub now: DateTime<Utc>,
    /// Random bits for the next id.
    pub random: &'a mut dyn FnMut() -> u64,
}

/// What becomes of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A new row; the account's state has moved on.
    Create(Transaction),
    /// The same request was posted before (or earlier in this group): answer with that row.
    Replay(Transaction),
    /// The key was used for a different request.
    Mismatch {
        /// The first field that differs.
        field: &'static str,
    },
    /// The ledger's rules forbid it; nothing is stored and the key stays free.
    Refused(Refusal),
}

/// Why a well-formed request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The account holds another currency.
    CurrencyMismatch {
        /// What the account holds.
        account_currency: Currency,
    },
    /// The debit would leave less than the account's `min_balance`. Minor units.
    LimitExceeded {
        /// The balance before.
        balance: i64,
        /// The limit.
        min_balance: i64,
        /// What both are in.
        currency: Currency,
    },
    /// The balance would leave the range that the ledger keeps.
    BalanceOutOfRange,
    /// An imported row is older than the account's last one.
    BeforeLastTransaction {
        /// When the account's last transaction was created.
        last_created_at: DateTime<Utc>,
    },
}

/// Decides a group. `accounts` holds the accounts known to exist; one that is missing opens with its first
/// transaction. On return `accounts` is the state after all created rows.
pub fn decide(
    accounts: &mut HashMap<AccountId, AccountState>,
    existing: &ExistingKeys,
    postings: &[Arc<Posting>],
    clock: &mut PostingClock<'_>,
) -> Vec<Decision> {
    let mut created: HashMap<(AccountId, IdempotencyKey), Transaction> =
        HashMap::with_capacity(postings.len());
    let mut decisions = Vec::with_capacity(postings.len());
    for posting in postings {
        let key = (posting.account_id.clone(), posting.idempotency_key.clone());
        let decision = match existing.get(&key).or_else(|| created.get(&key)) {
            Some(row) => same_key(row, posting),
            None => match post(accounts, posting, clock) {
                Ok(row) => {
                    created.insert(key, row.clone());
                    Decision::Create(row)
                }
                Err(refusal) => Decision::Refused(refusal),
            },
        };
        decisions.push(decision);
    }
    decisions
}

fn same_key(row: &Transaction, posting: &Posting) -> Decision {
    let moved = posting.created_at.is_some_and(|created_at| created_at != row.created_at);
    match posting.differing_field(&row.posting).or(moved.then_some("created_at")) {
        Some(field) => Decision::Mismatch { field },
        None => Decision::Replay(row.clone()),
    }
}

fn post(
    accounts: &mut HashMap<AccountId, AccountState>,
    posting: &Arc<Posting>,
    clock: &mut PostingClock<'_>,
) -> Result<Transaction, Refusal> {
    match accounts.entry(posting.account_id.clone()) {
        Entry::Occupied(mut known) => apply(known.get_mut(), posting, clock),
        Entry::Vacant(absent) => {
            let mut opened = AccountState::opened(posting.currency);
            let row = apply(&mut opened, posting, clock)?;
            absent.insert(opened);
            Ok(row)
        }
    }
}

fn apply(
    account: &mut AccountState,
    posting: &Arc<Posting>,
    clock: &mut PostingClock<'_>,
) -> Result<Transaction, Refusal> {
    if account.currency != posting.currency {
        return Err(Refusal::CurrencyMismatch { account_currency: account.currency });
    }
    let created_at = creation_time(account, posting, clock.now)?;
    let balance_after = account.balance + posting.signed_minor();
    if balance_after.abs() > AMOUNT_MINOR_MAX {
        return Err(Refusal::BalanceOutOfRange);
    }
    if let (Direction::Debit, Some(min_balance)) = (posting.direction, account.min_balance)
        && balance_after < min_balance
    {
        return Err(Refusal::LimitExceeded {
            balance: account.balance,
            min_balance,
            currency: account.currency,
        });
    }
    account.balance = balance_after;
    account.account_seq += 1;
    account.last_created_at = Some(created_at);
    Ok(Transaction {
        id: transaction_id(created_at, account.account_seq, (clock.random)()),
        posting: Arc::clone(posting),
        account_seq: account.account_seq,
        balance_after,
        created_at,
    })
}

/// Now, but never before the account's last row: clocks of several instances differ. Where the number within an id
/// begins anew, a microsecond later, so that the ids of an account rise with its numbers. An imported moment is not
/// moved; it is refused instead, because moving it would change history.
fn creation_time(
    account: &AccountState,
    posting: &Posting,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, Refusal> {
    match (posting.created_at, account.last_created_at) {
        (Some(at), Some(last_created_at)) if at < last_created_at => {
            Err(Refusal::BeforeLastTransaction { last_created_at })
        }
        (Some(at), _) => Ok(at),
        (None, Some(last)) => {
            let begins_anew = (account.account_seq + 1) % TRANSACTION_ID_SEQS == 0;
            let pause = TimeDelta::microseconds(i64::from(begins_anew));
            Ok(now.max(last.checked_add_signed(pause).unwrap_or(last)))
        }
        (None, None) => Ok(now),
    }
}

#[cfg(test)]
mod tests;
