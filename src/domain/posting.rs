//! The posting decision: decides each request of a group from the states of the accounts and the keys already used. Pure
//! and total; the caller must handle every [`Decision`].
//!
//! Requests are decided in order, and each sees the effect of the earlier ones. So a group has the same result as the same
//! requests posted one after the other.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    AMOUNT_MINOR_MAX, AccountId, AccountState, Currency, Direction, IdempotencyKey, Posting,
    TRANSACTION_ID_SEQS, Transaction, transaction_id,
};

/// The existing transactions under the idempotency keys of a group.
pub type ExistingKeys = HashMap<(AccountId, IdempotencyKey), Transaction>;

/// The time and the random bits for a decision.
pub struct PostingClock<'a> {
    /// The moment of the decision by the database's clock, truncated to microseconds, the precision of PostgreSQL.
    pub now: DateTime<Utc>,
    /// Random bits for the next id.
    pub random: &'a mut dyn FnMut() -> u64,
}

/// The decision on one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Creates a transaction. The account's state is updated.
    Create(Transaction),
    /// The same request was posted before, or earlier in this group. Answer with that transaction.
    Replay(Transaction),
    /// The key was used for a different request.
    Mismatch {
        /// The first field that differs.
        field: &'static str,
    },
    /// The ledger's rules forbid the request. Nothing is stored, and the key stays free.
    Refused(Refusal),
}

/// Why a well-formed request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The account has another currency.
    CurrencyMismatch {
        /// The currency of the account.
        account_currency: Currency,
    },
    /// The balance after the debit would be below the account's `min_balance`. Minor units.
    LimitExceeded {
        /// The balance before the debit.
        balance: i64,
        /// The limit.
        min_balance: i64,
        /// The currency of both.
        currency: Currency,
    },
    /// The balance would exceed [`AMOUNT_MINOR_MAX`].
    BalanceOutOfRange,
    /// An imported transaction is older than the account's last one.
    BeforeLastTransaction {
        /// When the account's last transaction was created.
        last_created_at: DateTime<Utc>,
    },
    /// An imported transaction is later than now.
    InFuture {
        /// The moment of the decision, by the database's clock.
        now: DateTime<Utc>,
    },
}

/// How much later than the decision an imported transaction may be: the clock that dated it may be a little ahead.
const IMPORT_AHEAD_MAX: TimeDelta = TimeDelta::seconds(1);

/// Decides a group. `accounts` holds the existing accounts; a missing account is opened by its first transaction. On return,
/// `accounts` holds the states after all created transactions.
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

/// Returns the creation time: now, but never before the account's last transaction, since the clocks of instances differ.
/// When the sequence number within an id wraps to zero, the time is at least a microsecond later, so that the ids of an
/// account rise with `account_seq`. An imported moment is never moved, because that would change history; it is refused if
/// it is before the last transaction, or in the future, where it would date all later transactions of the account.
fn creation_time(
    account: &AccountState,
    posting: &Posting,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, Refusal> {
    match (posting.created_at, account.last_created_at) {
        (Some(at), _) if at.signed_duration_since(now) > IMPORT_AHEAD_MAX => Err(Refusal::InFuture { now }),
        (Some(at), Some(last_created_at)) if at < last_created_at => {
            Err(Refusal::BeforeLastTransaction { last_created_at })
        }
        (Some(at), _) => Ok(at),
        (None, Some(last)) => {
            let wraps = (account.account_seq + 1) % TRANSACTION_ID_SEQS == 0;
            let pause = TimeDelta::microseconds(i64::from(wraps));
            Ok(now.max(last.checked_add_signed(pause).unwrap_or(last)))
        }
        (None, None) => Ok(now),
    }
}

#[cfg(test)]
mod tests;
