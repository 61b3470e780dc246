//! The locked path: locks the accounts of a group, reads which idempotency keys exist, decides, and writes.
//!
//! The keys are read by a later statement than the lock. A transaction that committed while this group waited for the
//! lock is therefore visible to it.

use std::collections::BTreeMap;

use super::{
    Posted, Request,
    group::{accounts_and_keys, by_key, decide_group},
    write::write,
};
use crate::{
    domain::{Decision, ExistingKeys},
    repository::{Connection, RepositoryError, accounts, transaction, transactions},
};

/// Posts a group on the locked path.
pub async fn post_locked(connection: &mut Connection, group: &[Request]) -> Result<Posted, RepositoryError> {
    transaction("post", connection, async |connection: &mut Connection| {
        post_in_transaction(connection, group).await
    })
    .await
}

/// Posts a group on the locked path, unless a request of it is refused or its key was used for another transaction.
/// Then nothing is written, and the error names the first such request.
pub async fn post_all_or_nothing(
    connection: &mut Connection,
    group: &[Request],
) -> Result<Posted, RepositoryError> {
    transaction("post", connection, async |connection: &mut Connection| {
        let posted = post_in_transaction(connection, group).await?;
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
) -> Result<Posted, RepositoryError> {
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

/// Reads the transactions that exist under the idempotency keys of the group.
pub(super) async fn existing_keys(
    connection: &mut Connection,
    group: &[Request],
) -> Result<ExistingKeys, RepositoryError> {
    let (account_ids, keys) = accounts_and_keys(group);
    let existing = transactions::existing(connection, &account_ids, &keys).await?;
    Ok(by_key(existing).collect())
}
