//! A dry run of an import: decides every group as posting would, and writes nothing to the ledger.
//!
//! What posting would have written is remembered instead, so that the next groups meet it: in temporary tables of the
//! session, where it costs the importer no memory, however long the file is. PostgreSQL spills them to disk and drops
//! them with the session. Nothing of it is seen by others or outlives the session.

use std::collections::BTreeSet;

use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;

use super::{
    Bind, Connection, RepositoryError, accounts,
    postings::{self, AccountStates, Columns, Posted, Request},
    statement, transactions,
};
use crate::domain::{AccountId, Decision};

/// Makes the tables for this session.
pub async fn begin(connection: &mut Connection) -> Result<(), RepositoryError> {
    for table in [
        "CREATE TEMPORARY TABLE rehearsed_accounts (LIKE accounts INCLUDING DEFAULTS INCLUDING INDEXES)",
        "CREATE TEMPORARY TABLE rehearsed_transactions (LIKE transactions, PRIMARY KEY (account_id, idempotency_key))",
    ] {
        diesel::sql_query(table).execute(connection).await?;
    }
    Ok(())
}

/// Decides a group as [`post_locked`](super::postings::post_locked) would after all groups before it, and remembers what
/// it would have written. Nothing is remembered of a group without new rows.
pub async fn rehearse(
    connection: &mut Connection,
    group: &[Request],
) -> Result<Vec<Decision>, RepositoryError> {
    let before = states(connection, group).await?;
    let mut existing = postings::existing_keys(connection, group).await?;
    let (account_ids, keys) = postings::keys(group);
    let remembered = transactions::rehearsed(connection, &account_ids, &keys).await?;
    existing.extend(postings::by_key(remembered));
    let posted = postings::decide_group(&before, &existing, group);
    remember(connection, &posted).await?;
    Ok(posted.decisions)
}

/// Of the group's accounts as far as they exist: as groups before this one left them, or as they are.
async fn states(connection: &mut Connection, group: &[Request]) -> Result<AccountStates, RepositoryError> {
    let of_group: BTreeSet<&AccountId> = group.iter().map(|request| &request.posting.account_id).collect();
    let account_ids: Vec<&str> = of_group.iter().map(|id| id.as_str()).collect();
    let mut states = accounts::rehearsed_states(connection, &account_ids).await?;
    let untouched: Vec<&str> =
        of_group.into_iter().filter(|id| !states.contains_key(*id)).map(AccountId::as_str).collect();
    states.extend(accounts::states(connection, &untouched).await?);
    Ok(states)
}

async fn remember(connection: &mut Connection, posted: &Posted) -> Result<(), RepositoryError> {
    let mut columns = Columns::default();
    for decision in &posted.decisions {
        if let Decision::Create(row) = decision {
            columns.push(row);
        }
    }
    if columns.ids.is_empty() {
        return Ok(());
    }
    remember_accounts(connection, &posted.accounts).await?;
    statement(
        "INSERT INTO rehearsed_transactions (account_id, account_seq, id, amount, balance_after, created_at, reverses,
                                             idempotency_key, counterparty, description, metadata)
         SELECT unnest(?), unnest(?), unnest(?), unnest(?), unnest(?), unnest(?), unnest(?),
                unnest(?), unnest(?), unnest(?), unnest(?)::json",
    )
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
    .execute(connection)
    .await?;
    Ok(())
}

/// As the group leaves them.
async fn remember_accounts(
    connection: &mut Connection,
    states: &AccountStates,
) -> Result<(), RepositoryError> {
    let all = || states.iter();
    statement(
        "INSERT INTO rehearsed_accounts (account_id, currency, balance, account_seq, min_balance, last_created_at)
         SELECT * FROM unnest(?, ?, ?, ?, ?, ?)
         ON CONFLICT (account_id) DO UPDATE SET balance = excluded.balance, account_seq = excluded.account_seq,
           last_created_at = excluded.last_created_at",
    )
    .bind::<Array<Text>, _>(all().map(|(id, _)| id.as_str()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(all().map(|(_, state)| state.currency.code()).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(all().map(|(_, state)| state.balance).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(all().map(|(_, state)| state.account_seq).collect::<Vec<_>>())
    .bind::<Array<Nullable<BigInt>>, _>(all().map(|(_, state)| state.min_balance).collect::<Vec<_>>())
    .bind::<Array<Nullable<Timestamptz>>, _>(all().map(|(_, state)| state.last_created_at).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
