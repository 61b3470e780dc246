//! What a dry run of an import would have written, kept in temporary tables of its session.
//!
//! A dry run has to know the accounts and the keys of all rows before the current one. Kept here they cost the importer
//! no memory, however long the file is; PostgreSQL spills them to disk and drops them with the session. Nothing of it
//! is seen by others or outlives the session.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Nullable, Text, Timestamptz},
};
use diesel_async::RunQueryDsl;

use super::{Bind, Connection, RepositoryError, accounts, postings::AccountStates, statement};

/// Makes the tables for this session.
pub async fn begin(connection: &mut Connection) -> Result<(), RepositoryError> {
    for table in [
        "CREATE TEMPORARY TABLE rehearsed_accounts (LIKE accounts INCLUDING DEFAULTS INCLUDING INDEXES)",
        "CREATE TEMPORARY TABLE rehearsed_keys (
           account_id text COLLATE \"C\", idempotency_key text COLLATE \"C\", fingerprint bigint NOT NULL,
           PRIMARY KEY (account_id, idempotency_key))",
    ] {
        diesel::sql_query(table).execute(connection).await?;
    }
    Ok(())
}

/// The states of those of the accounts that rows before this one have touched.
pub async fn states(
    connection: &mut Connection,
    account_ids: &[&str],
) -> Result<AccountStates, RepositoryError> {
    accounts::rehearsed_states(connection, account_ids).await
}

#[derive(QueryableByName)]
struct Known {
    #[diesel(sql_type = BigInt)]
    ordinal: i64,
    #[diesel(sql_type = BigInt)]
    fingerprint: i64,
}

/// For each account and key the fingerprint of the row that used them, or None if none did.
pub async fn fingerprints(
    connection: &mut Connection,
    account_ids: &[&str],
    keys: &[&str],
) -> Result<Vec<Option<i64>>, RepositoryError> {
    let known: Vec<Known> = statement(
        "SELECT w.ordinal, k.fingerprint
         FROM unnest(?, ?) WITH ORDINALITY AS w (account_id, idempotency_key, ordinal)
         CROSS JOIN LATERAL (
           SELECT fingerprint FROM rehearsed_keys k
           WHERE k.account_id = w.account_id AND k.idempotency_key = w.idempotency_key OFFSET 0) AS k",
    )
    .bind::<Array<Text>, _>(account_ids)
    .bind::<Array<Text>, _>(keys)
    .load(connection)
    .await?;
    let mut fingerprints = vec![None; account_ids.len()];
    for Known { ordinal, fingerprint } in known {
        let place = usize::try_from(ordinal - 1).ok().and_then(|place| fingerprints.get_mut(place));
        place.map(|place| place.replace(fingerprint));
    }
    Ok(fingerprints)
}

/// Remembers the accounts as the group leaves them.
pub async fn remember_accounts(
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

/// Remembers the keys that new rows used.
pub async fn remember_keys(
    connection: &mut Connection,
    account_ids: &[&str],
    keys: &[&str],
    fingerprints: &[i64],
) -> Result<(), RepositoryError> {
    statement(
        "INSERT INTO rehearsed_keys (account_id, idempotency_key, fingerprint) SELECT * FROM unnest(?, ?, ?)",
    )
    .bind::<Array<Text>, _>(account_ids)
    .bind::<Array<Text>, _>(keys)
    .bind::<Array<BigInt>, _>(fingerprints)
    .execute(connection)
    .await?;
    Ok(())
}
