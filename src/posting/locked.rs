//! The locked path: locks the accounts of a group, reads which idempotency keys exist, decides, and writes.
//!
//! The keys are read by a later statement than the lock. A transaction that committed while this group waited for the
//! lock is therefore visible to it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{
    Posted, Request,
    group::{accounts_and_keys, by_key, decide_group},
    write::write,
};
use crate::{
    domain::{Decision, ExistingKeys},
    repository::{
        ClockEstimate, Connection, RepositoryError, accounts, read_clock, transaction, transactions,
    },
};

/// Tells the time by the database's clock. A group is dated when its accounts are locked.
pub(super) type Now<'a> = &'a (dyn Fn() -> DateTime<Utc> + Sync);

/// Posts a group on the locked path. Reads the database's clock first.
pub async fn post_locked(connection: &mut Connection, group: &[Request]) -> Result<Posted, RepositoryError> {
    let clock = ClockEstimate::new(read_clock(connection).await?);
    post_locked_at(connection, group, &|| clock.now()).await
}

/// Posts a group on the locked path, with a clock that the caller has read.
pub(super) async fn post_locked_at(
    connection: &mut Connection,
    group: &[Request],
    now: Now<'_>,
) -> Result<Posted, RepositoryError> {
    transaction("post", connection, async |connection: &mut Connection| {
        post_in_transaction(connection, group, now).await
    })
    .await
}

/// Posts a group on the locked path, unless a request of it is refused or its key was used for another transaction.
/// Then nothing is written, and the error names the first such request.
pub async fn post_all_or_nothing(
    connection: &mut Connection,
    group: &[Request],
) -> Result<Posted, RepositoryError> {
    let clock = ClockEstimate::new(read_clock(connection).await?);
    transaction("post", connection, async |connection: &mut Connection| {
        let posted = post_in_transaction(connection, group, &|| clock.now()).await?;
        let accepted = |decision: &Decision| matches!(decision, Decision::Create(_) | Decision::Replay(_));
        let refused = posted.decisions.iter().enumerate().find(|(_, decision)| !accepted(decision));
        match refused {
            None => Ok(posted),
            Some((position, decision)) => {
                Err(RepositoryError::GroupRefused { position, decision: Box::new(decision.clone()) })
            }
        }
    })
    .await
}

async fn post_in_transaction(
    connection: &mut Connection,
    group: &[Request],
    now: Now<'_>,
) -> Result<Posted, RepositoryError> {
    let first_currencies: BTreeMap<&str, &str> = group
        .iter()
        .rev()
        .map(|request| (request.posting.account_id.as_str(), request.posting.currency.code()))
        .collect();
    let (account_ids, currencies): (Vec<&str>, Vec<&str>) = first_currencies.into_iter().unzip();
    let before = accounts::open_and_lock(connection, &account_ids, &currencies).await?;

    let existing = existing_keys(connection, group).await?;
    let mut posted = decide_group(&before, &existing, group, now());
    write(connection, &before, &mut posted, group).await?;
    Ok(posted)
}

/// Reads the transactions that exist under the idempotency keys of the group.
pub(super) async fn existing_keys(
    connection: &mut Connection,
    group: &[Request],
) -> Result<ExistingKeys, RepositoryError> {
    let (account_ids, keys) = accounts_and_keys(group);
    let existing = transactions::existing(connection, &account_ids, &keys).await?;
    Ok(by_key(existing).collect())
}
