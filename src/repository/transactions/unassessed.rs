//! Transactions that have neither an assessment nor a dead letter, read in bounded pieces. They remain, for example,
//! after a position was moved past their events.

use diesel::{
    QueryableByName,
    dsl::{exists, not},
    prelude::*,
    sql_types::{BigInt, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::row::TransactionRow;
use crate::{
    domain::Transaction,
    repository::{
        Bind, Connection, RepositoryError,
        schema::{dead_letters, risk_assessments, transactions},
        statement,
    },
};

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// Returns the last id of the first `count` transactions after `after` and before `before`, or None if there is none.
/// A piece is bounded by the number of rows read, not by the number of rows found.
pub async fn piece_end(
    connection: &mut Connection,
    after: Uuid,
    before: Uuid,
    count: i64,
) -> Result<Option<Uuid>, RepositoryError> {
    let last: Option<Id> = statement(include_str!("piece_end.sql"))
        .bind::<SqlUuid, _>(after)
        .bind::<SqlUuid, _>(before)
        .bind::<BigInt, _>(count)
        .get_result(connection)
        .await
        .optional()?;
    Ok(last.map(|row| row.id))
}

/// Returns the transactions after `after`, up to and including `upto`, that have no assessment and no dead letter of
/// `group` or of the relay. They are sorted by id, so an account's rows are in order of `account_seq`. A transaction
/// with a dead letter gets its assessment when the dead letter is retried.
pub async fn unassessed(
    connection: &mut Connection,
    group: &str,
    after: Uuid,
    upto: Uuid,
) -> Result<Vec<Transaction>, RepositoryError> {
    let assessment = risk_assessments::table
        .filter(risk_assessments::account_id.eq(transactions::account_id))
        .filter(risk_assessments::account_seq.eq(transactions::account_seq))
        .select(risk_assessments::account_seq)
        // OFFSET keeps this one probe of the primary key for each row, whatever the statistics say.
        .offset(0);
    let is_dead_lettered = dead_letters::consumer_group.eq(group).or(dead_letters::record_offset.is_null());
    let dead_letter = dead_letters::table
        .filter(dead_letters::event_id.eq(transactions::id.nullable()))
        .filter(is_dead_lettered);
    let rows = transactions::table
        .filter(transactions::id.gt(after).and(transactions::id.le(upto)))
        .filter(not(exists(assessment)))
        .filter(not(exists(dead_letter)))
        .order(transactions::id)
        .select(TransactionRow::as_select())
        .load(connection)
        .await?;
    rows.into_iter().map(TransactionRow::into_transaction).collect()
}
