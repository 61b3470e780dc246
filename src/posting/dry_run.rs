//! A dry run: decides every group as the locked path does, and writes nothing to the ledger.
//!
//! Later groups must see the effect of earlier ones. So the session keeps their accounts and transactions in temporary
//! tables. This costs the importer no memory, however long the file is: PostgreSQL spills the tables to disk and drops
//! them with the session. No other session sees them.

use std::collections::BTreeSet;

use super::{
    AccountStates, Posted, Request,
    group::{accounts_and_keys, by_key, decide_group},
    locked::existing_keys,
};
use crate::{
    domain::{AccountId, Decision},
    repository::{
        Connection, RepositoryError, accounts,
        dry_run::{self, DryRunAccountColumns},
        postings::TransactionColumns,
        read_clock,
    },
};

/// Creates the temporary tables in this session.
pub async fn begin(connection: &mut Connection) -> Result<(), RepositoryError> {
    dry_run::create_tables(connection).await
}

/// Decides a group as [`post_locked`](super::post_locked) would after all groups before it, and remembers its effect. A
/// group that creates no transaction has no effect.
pub async fn decide(
    connection: &mut Connection,
    group: &[Request],
) -> Result<Vec<Decision>, RepositoryError> {
    let before = states(connection, group).await?;
    let mut existing = existing_keys(connection, group).await?;
    let (account_ids, keys) = accounts_and_keys(group);
    existing.extend(by_key(dry_run::transactions(connection, &account_ids, &keys).await?));
    let now = read_clock(connection).await?.shown;
    let posted = decide_group(&before, &existing, group, now);
    remember(connection, &posted).await?;
    Ok(posted.decisions)
}

/// Returns the states of the group's open accounts: as earlier groups of the dry run left them, or as they are in the
/// ledger.
async fn states(connection: &mut Connection, group: &[Request]) -> Result<AccountStates, RepositoryError> {
    let of_group: BTreeSet<&AccountId> = group.iter().map(|request| &request.posting.account_id).collect();
    let account_ids: Vec<&str> = of_group.iter().map(|id| id.as_str()).collect();
    let mut states = dry_run::account_states(connection, &account_ids).await?;
    let untouched: Vec<&str> =
        of_group.into_iter().filter(|id| !states.contains_key(*id)).map(AccountId::as_str).collect();
    states.extend(accounts::states(connection, &untouched).await?);
    Ok(states)
}

async fn remember(connection: &mut Connection, posted: &Posted) -> Result<(), RepositoryError> {
    let mut created = TransactionColumns::default();
    for decision in &posted.decisions {
        if let Decision::Create(transaction) = decision {
            created.push(transaction);
        }
    }
    if created.is_empty() {
        return Ok(());
    }
    let mut touched = DryRunAccountColumns::default();
    for (account_id, state) in &posted.accounts {
        touched.push(account_id, state);
    }
    dry_run::remember_accounts(connection, touched).await?;
    dry_run::remember_transactions(connection, created).await
}
