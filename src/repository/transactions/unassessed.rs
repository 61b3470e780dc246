//! Rows of the ledger that have neither an assessment nor a dead letter, in bounded pieces: what lost offsets left behind.

use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{BigInt, Text, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::row::TransactionRow;
use crate::{
    domain::Transaction,
    repository::{Bind, Connection, RepositoryError, statement},
};

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// The last of the first `count` rows after `after` and before `before`, by id, which sorts by time. None if there is
/// no row. Not how much is missing but how much is looked at bounds the work.
pub async fn piece_end(
    connection: &mut Connection,
    after: Uuid,
    before: Uuid,
    count: i64,
) -> Result<Option<Uuid>, RepositoryError> {
    let last: Option<Id> = statement(
        "SELECT id FROM (SELECT id FROM transactions WHERE id > ? AND id < ? ORDER BY id LIMIT ?) AS piece
         ORDER BY id DESC LIMIT 1",
    )
    .bind::<SqlUuid, _>(after)
    .bind::<SqlUuid, _>(before)
    .bind::<BigInt, _>(count)
    .get_result(connection)
    .await
    .optional()?;
    Ok(last.map(|row| row.id))
}

/// The rows after `after` up to and with `upto` that have no assessment and no dead letter of `group` or of the relay,
/// by id: within an account that is in `account_seq` order. Those that have a letter are settled by its replay.
pub async fn unassessed(
    connection: &mut Connection,
    group: &str,
    after: Uuid,
    upto: Uuid,
) -> Result<Vec<Transaction>, RepositoryError> {
    // OFFSET 0 keeps the question for the assessment a probe of its own, whatever the statistics say. Letters are few.
    let rows: Vec<TransactionRow> = statement(
        "SELECT t.account_id, a.currency, t.account_seq, t.id, t.amount, t.balance_after, t.created_at, t.reverses,
                t.idempotency_key, t.counterparty, t.description, t.metadata::text AS metadata
         FROM transactions t JOIN accounts a USING (account_id)
         WHERE t.id > ? AND t.id <= ?
           AND NOT EXISTS (SELECT FROM risk_assessments r
                           WHERE r.account_id = t.account_id AND r.account_seq = t.account_seq OFFSET 0)
           AND NOT EXISTS (SELECT FROM dead_letters d
                           WHERE d.event_id = t.id AND (d.consumer_group = ? OR d.record_offset IS NULL))
         ORDER BY t.id",
    )
    .bind::<SqlUuid, _>(after)
    .bind::<SqlUuid, _>(upto)
    .bind::<Text, _>(group)
    .get_results(connection)
    .await?;
    rows.into_iter().map(TransactionRow::into_transaction).collect()
}
