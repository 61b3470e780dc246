//! The selected transactions, as a numbered list in a temporary table of the connection.

use diesel::{
    ExpressionMethods, QueryDsl, QueryableByName,
    sql_types::{Array, BigInt, Nullable, Text, Uuid as SqlUuid},
};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use uuid::Uuid;

use super::super::{
    Bind, Connection, RepositoryError, schema::transactions, statement, transactions::TransactionRow,
};
use crate::domain::Transaction;

/// The size of a selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Selected {
    /// The number of transactions.
    #[diesel(sql_type = BigInt)]
    pub transactions: i64,
    /// The number of their accounts.
    #[diesel(sql_type = BigInt)]
    pub accounts: i64,
}

/// Creates an empty selection. Call it once for a connection.
pub async fn create_selection(connection: &mut Connection) -> Result<(), RepositoryError> {
    connection.batch_execute(include_str!("create_selection.sql")).await?;
    Ok(())
}

/// Returns the ids that no transaction has.
pub async fn unknown_ids(connection: &mut Connection, ids: &[Uuid]) -> Result<Vec<Uuid>, RepositoryError> {
    let known: Vec<Uuid> = transactions::table
        .filter(transactions::id.eq_any(ids))
        .select(transactions::id)
        .load(connection)
        .await?;
    Ok(ids.iter().filter(|id| !known.contains(id)).copied().collect())
}

/// Selects the transactions with these ids.
pub async fn select_ids(connection: &mut Connection, ids: &[Uuid]) -> Result<(), RepositoryError> {
    statement(include_str!("select_ids.sql")).bind::<Array<SqlUuid>, _>(ids).execute(connection).await?;
    analyze(connection).await
}

/// Selects the transactions from id `from` up to but not including `before`, of one account or of all.
pub async fn select_range(
    connection: &mut Connection,
    account_id: Option<&str>,
    from: Uuid,
    before: Uuid,
) -> Result<(), RepositoryError> {
    statement(include_str!("select_range.sql"))
        .bind::<Nullable<Text>, _>(account_id)
        .bind::<SqlUuid, _>(from)
        .bind::<SqlUuid, _>(before)
        .execute(connection)
        .await?;
    analyze(connection).await
}

/// Selects the transactions in the gaps that `verification::insert_gaps` stored, unless they wait in the outbox or the
/// relay dead-lettered them.
pub async fn select_missing(connection: &mut Connection) -> Result<(), RepositoryError> {
    statement(include_str!("select_missing.sql")).execute(connection).await?;
    analyze(connection).await
}

async fn analyze(connection: &mut Connection) -> Result<(), RepositoryError> {
    connection.batch_execute("ANALYZE republish_selected").await?;
    Ok(())
}

/// Returns the size of the selection.
pub async fn selected(connection: &mut Connection) -> Result<Selected, RepositoryError> {
    Ok(statement(include_str!("selected.sql")).get_result(connection).await?)
}

/// Returns the transactions with the numbers `after + 1` to `after + count` of the selection.
pub async fn page(
    connection: &mut Connection,
    after: i64,
    count: i64,
) -> Result<Vec<Transaction>, RepositoryError> {
    let rows = statement(include_str!("page.sql"))
        .bind::<BigInt, _>(after)
        .bind::<BigInt, _>(after + count)
        .load::<TransactionRow>(connection)
        .await?;
    rows.into_iter().map(TransactionRow::into_transaction).collect()
}
