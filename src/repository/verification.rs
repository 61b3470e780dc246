//! The questions that `ledger verify` asks the database, as sets: each answers how much differs, and up to ten examples
//! for people.
//!
//! Guarantees: every statement sees one moment of a live system, and what must be seen together is in one statement or
//! in [`snapshot`]. Nothing is changed but temporary tables of the connection. Memory here does not grow with the
//! ledger; PostgreSQL sorts and hashes on disk where it must. Deliberately absent: any use of the write path's own
//! statements, so that a mistake there is not made again here.

mod announcements;
mod events;
mod facts;
mod ledger;

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Text},
};
use diesel_async::{RunQueryDsl, methods::LoadQuery};

pub use announcements::{Announcement, announcements_unlike, unannounced};
pub use events::{
    PublishedAccount, Record, SequenceRange, Unlike, Unpublished, analyze_published, assessments_missing_for,
    dead_letters_missing_for, dead_letters_unsent, gaps_in_outbox, gaps_missing, insert_gaps,
    insert_published, match_dead_letters, outbox_without_row, records_unlike_rows, unpublished,
};
pub use facts::{DayFacts, compare_day};
pub use ledger::{
    assessments_repeated, assessments_without_row, balances, counts, keys_repeated, pending, reversals,
    sequences,
};

use super::{
    Bind, Connection, Isolation, RepositoryError,
    positions::{self, PositionRow},
    statement, transaction_with,
};

/// How many examples a question answers at most.
pub const EXAMPLES_MAX: usize = 10;

/// What a question found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// How much differs.
    pub differences: i64,
    /// Up to [`EXAMPLES_MAX`] of it, in words.
    pub examples: Vec<String>,
}

impl Found {
    /// Adds what another question found.
    pub fn add(&mut self, other: Self) {
        self.differences += other.differences;
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }

    /// Adds one difference.
    pub fn push(&mut self, example: impl FnOnce() -> String) {
        self.differences += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }
}

#[derive(QueryableByName)]
struct Difference {
    #[diesel(sql_type = BigInt)]
    total: i64,
    #[diesel(sql_type = Text)]
    example: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Runs a question that answers rows of `total` (the same in each) and `example`.
async fn find<'question, Question>(
    connection: &mut Connection,
    question: Question,
) -> Result<Found, RepositoryError>
where
    Question: LoadQuery<'question, Connection, Difference> + 'question,
{
    let differences: Vec<Difference> = question.get_results(connection).await?;
    Ok(Found {
        differences: differences.as_slice().first().map_or(0, |difference| difference.total),
        examples: differences.into_iter().map(|difference| difference.example).collect(),
    })
}

/// What [`snapshot`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Rows of the ledger.
    pub transactions: i64,
    /// Rows of the outbox that are for `transactions.v1`.
    pub outbox_transactions: i64,
    /// All consumer positions.
    pub positions: Vec<PositionRow>,
}

/// Remembers one moment in temporary tables of the connection: each account's last sequence number, what is in the
/// outbox, which assessments and dead letters there are, and answers the consumer positions of the same moment. What was deleted from
/// the outbox before it is in the topics that are read after it.
pub async fn snapshot(connection: &mut Connection) -> Result<Snapshot, RepositoryError> {
    transaction_with(
        Isolation::RepeatableRead,
        "verify_snapshot",
        connection,
        async |connection: &mut Connection| {
            let tables = [
                "CREATE TEMP TABLE verify_accounts AS SELECT account_id, account_seq FROM accounts",
                "CREATE TEMP TABLE verify_outbox AS SELECT topic, event_id FROM outbox",
                "CREATE TEMP TABLE verify_dead_letters AS SELECT * FROM dead_letters",
                "CREATE TEMP TABLE verify_assessments AS
                   SELECT account_id, account_seq, transaction_id, assessed_at FROM risk_assessments",
                "CREATE TEMP TABLE verify_announcing AS
                   SELECT (convert_from(value, 'UTF8')::json ->> 'transaction_id')::uuid AS transaction_id
                   FROM (SELECT value FROM outbox WHERE event_type = 'RiskAssessed.v1'
                         UNION ALL SELECT value FROM dead_letters
                         WHERE topic = 'risk-assessments.v1' AND record_offset IS NULL) AS waiting",
                "CREATE TEMP TABLE verify_announced (transaction_id uuid)",
                "CREATE TEMP TABLE verify_published (account_id text COLLATE \"C\", first_seq bigint, next_seq bigint)",
                "CREATE TEMP TABLE verify_gaps (account_id text COLLATE \"C\", from_seq bigint, to_seq bigint)",
                "CREATE TEMP TABLE verify_sent (id uuid)",
                "ANALYZE verify_accounts",
                "ANALYZE verify_outbox",
                "ANALYZE verify_assessments",
                "ANALYZE verify_announcing",
            ];
            for table in tables {
                diesel::sql_query(table).execute(&mut *connection).await?;
            }
            let positions = positions::list(&mut *connection, None).await?;
            let outbox: Count =
                statement("SELECT count(*) AS count FROM verify_outbox WHERE topic = 'transactions.v1'")
                    .get_result(&mut *connection)
                    .await?;
            let transactions: Count =
                statement("SELECT coalesce(sum(account_seq), 0)::bigint AS count FROM verify_accounts")
                    .get_result(&mut *connection)
                    .await?;
            Ok(Snapshot { transactions: transactions.count, outbox_transactions: outbox.count, positions })
        },
    )
    .await
}

/// Rows in the outbox now, for any topic.
pub async fn outbox_rows(connection: &mut Connection) -> Result<i64, RepositoryError> {
    let rows: Count = statement("SELECT count(*) AS count FROM outbox").get_result(connection).await?;
    Ok(rows.count)
}
