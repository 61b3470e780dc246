//! The sequences that number rows, compared with the rows that they number.
//!
//! Neither logical replication nor a restore of single tables copies the state of a sequence. A sequence that is behind
//! its table draws ids that are taken, or that sort before rows that were written earlier. The outbox is published in the
//! order of its ids, so its events would leave in the wrong order.
//!
//! Guarantees: a comparison reads a few index entries, however large the tables are. A sequence only moves up, and no row
//! is inserted between the comparison and the move.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Text},
};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::{Bind, Connection, RepositoryError, statement, transaction};

/// Every sequence of the schema. `behind.sql` compares each, and `advance` locks their tables.
pub const SEQUENCES: [&str; 3] = ["aggregate_runs_id_seq", "dead_letter_replays_id_seq", "outbox_id"];

/// A sequence that is behind the ids of its table.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct SequenceBehind {
    /// The name of the sequence.
    #[diesel(sql_type = Text)]
    pub sequence: String,
    /// The last id that it drew.
    #[diesel(sql_type = BigInt)]
    pub last_id: i64,
    /// The highest id of the table.
    #[diesel(sql_type = BigInt)]
    pub highest_id: i64,
}

/// Refuses sequences that are behind, naming the command that moves them.
pub async fn check(connection: &mut Connection) -> Result<(), RepositoryError> {
    match behind(connection).await?.into_iter().next() {
        None => Ok(()),
        Some(SequenceBehind { sequence, last_id, highest_id }) => {
            Err(RepositoryError::SequenceBehind { sequence, last_id, highest_id })
        }
    }
}

/// Moves each sequence that is behind to the highest id of its table, and returns how they were before. Locks the tables
/// against inserts only if there is such a sequence.
pub async fn advance(connection: &mut Connection) -> Result<Vec<SequenceBehind>, RepositoryError> {
    if behind(connection).await?.is_empty() {
        return Ok(Vec::new());
    }
    transaction("advance sequences", connection, async |connection: &mut Connection| {
        connection
            .batch_execute(
                "SET LOCAL lock_timeout = '5s';
                 LOCK TABLE outbox, aggregate_runs, dead_letter_replays IN SHARE ROW EXCLUSIVE MODE",
            )
            .await?;
        // A statement of its own, because its snapshot must be younger than the locks.
        let found = behind(connection).await?;
        let (names, ids): (Vec<&str>, Vec<i64>) =
            found.iter().map(|behind| (behind.sequence.as_str(), behind.highest_id)).unzip();
        statement(include_str!("sequences/advance.sql"))
            .bind::<Array<Text>, _>(names)
            .bind::<Array<BigInt>, _>(ids)
            .execute(connection)
            .await?;
        Ok(found)
    })
    .await
}

async fn behind(connection: &mut Connection) -> Result<Vec<SequenceBehind>, RepositoryError> {
    Ok(statement(include_str!("sequences/behind.sql")).get_results(connection).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_is_compared() {
        let sql = include_str!("sequences/behind.sql");
        for sequence in SEQUENCES {
            assert!(sql.contains(&format!("FROM {sequence}")), "{sequence}");
        }
    }
}
