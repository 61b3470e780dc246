//! The snapshot of one moment, in temporary tables.

use diesel::{QueryDsl, QueryableByName, sql_types::BigInt};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::super::{
    Connection, Isolation, RepositoryError,
    positions::{self, PositionRow},
    schema::outbox,
    statement, transaction_with,
};

/// The counts and positions of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Transactions in the ledger.
    pub transactions: i64,
    /// Outbox rows for `transactions.v1`.
    pub outbox_transactions: i64,
    /// All consumer positions.
    pub positions: Vec<PositionRow>,
}

#[derive(QueryableByName)]
struct SnapshotCounts {
    #[diesel(sql_type = BigInt)]
    transactions: i64,
    #[diesel(sql_type = BigInt)]
    outbox_transactions: i64,
}

/// Copies one moment into temporary tables of the connection: the last sequence number of each account, the outbox, the
/// assessments and the dead letters. Returns the consumer positions of the same moment.
///
/// Rows that left the outbox before the snapshot are in the topics, if these are read after it.
pub async fn snapshot(connection: &mut Connection) -> Result<Snapshot, RepositoryError> {
    transaction_with(
        Isolation::RepeatableRead,
        "verify_snapshot",
        connection,
        async |connection: &mut Connection| {
            connection.batch_execute(include_str!("snapshot.sql")).await?;
            let positions = positions::list(&mut *connection, None).await?;
            let SnapshotCounts { transactions, outbox_transactions } =
                statement(include_str!("snapshot_counts.sql")).get_result(&mut *connection).await?;
            Ok(Snapshot { transactions, outbox_transactions, positions })
        },
    )
    .await
}

/// Returns the current number of outbox rows, for all topics.
pub async fn outbox_rows(connection: &mut Connection) -> Result<i64, RepositoryError> {
    Ok(outbox::table.count().get_result(connection).await?)
}
