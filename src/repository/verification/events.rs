//! The ledger against what was published of it. Call [`super::snapshot`] first: the temporary tables are its.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{Bind, Connection, Found, RepositoryError, find, statement};

/// A published event as far as it can be held against its row, and where it stands. Money in minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Whose row.
    pub account_id: String,
    /// Which row.
    pub account_seq: i64,
    /// The event's and the transaction's id.
    pub event_id: Uuid,
    /// Positive for a credit.
    pub amount: i64,
    /// Of the account.
    pub balance_after: i64,
    /// The account's.
    pub currency: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// With whom.
    pub counterparty: Option<String>,
    /// In words.
    pub description: Option<String>,
    /// As the ledger keeps it.
    pub metadata: Option<String>,
    /// Which row it reverses.
    pub reverses: Option<Uuid>,
}

/// An event that tells of a row that the ledger does not have, or tells it differently.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Unlike {
    /// Where it stands.
    #[diesel(sql_type = BigInt)]
    pub record_offset: i64,
    /// Whether a group put it aside for that.
    #[diesel(sql_type = Bool)]
    pub put_aside: bool,
    /// In words.
    #[diesel(sql_type = Text)]
    pub example: String,
}

/// Which of the events are unlike their rows, in the order of their offsets.
pub async fn records_unlike_rows(
    connection: &mut Connection,
    records: &[Record],
) -> Result<Vec<Unlike>, RepositoryError> {
    let unlike = statement(
        "SELECT e.record_offset,
           EXISTS (SELECT FROM dead_letters d WHERE d.topic = 'transactions.v1' AND d.partition = e.partition
                   AND d.record_offset = e.record_offset) AS put_aside,
           'partition ' || e.partition || ' offset ' || e.record_offset || ' tells of account ' || e.account_id
             || ' row ' || e.account_seq || ' (' || e.event_id || ', amount ' || e.amount || ', balance '
             || e.balance_after || '), but the ledger has '
             || coalesce(t.id || ', amount ' || t.amount || ', balance ' || t.balance_after
                         || CASE WHEN (t.id, t.amount, t.balance_after) = (e.event_id, e.amount, e.balance_after)
                                 THEN ' with another currency, time, text, metadata or reversal' ELSE '' END, 'none') AS example
         FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
           AS e (partition, record_offset, account_id, account_seq, event_id, amount, balance_after, currency,
                 created_at, counterparty, description, metadata, reverses)
         LEFT JOIN transactions t ON t.account_id = e.account_id AND t.account_seq = e.account_seq
         LEFT JOIN accounts a ON a.account_id = e.account_id
         WHERE (t.id, t.amount, t.balance_after, a.currency, t.created_at, t.counterparty, t.description,
                t.metadata::text, t.reverses)
               IS DISTINCT FROM
               (e.event_id, e.amount, e.balance_after, e.currency, e.created_at, e.counterparty, e.description,
                e.metadata, e.reverses)
         ORDER BY e.record_offset",
    )
    .bind::<Array<Integer>, _>(column(records, |record| record.partition))
    .bind::<Array<BigInt>, _>(column(records, |record| record.offset))
    .bind::<Array<Text>, _>(column(records, |record| record.account_id.clone()))
    .bind::<Array<BigInt>, _>(column(records, |record| record.account_seq))
    .bind::<Array<SqlUuid>, _>(column(records, |record| record.event_id))
    .bind::<Array<BigInt>, _>(column(records, |record| record.amount))
    .bind::<Array<BigInt>, _>(column(records, |record| record.balance_after))
    .bind::<Array<Text>, _>(column(records, |record| record.currency.as_str()))
    .bind::<Array<Timestamptz>, _>(column(records, |record| record.created_at))
    .bind::<Array<Nullable<Text>>, _>(column(records, |record| record.counterparty.as_deref()))
    .bind::<Array<Nullable<Text>>, _>(column(records, |record| record.description.as_deref()))
    .bind::<Array<Nullable<Text>>, _>(column(records, |record| record.metadata.as_deref()))
    .bind::<Array<Nullable<SqlUuid>>, _>(column(records, |record| record.reverses))
    .get_results(connection)
    .await?;
    Ok(unlike)
}

/// Of events that the group has gone past: those with neither an assessment nor a dead letter.
pub async fn assessments_missing_for(
    connection: &mut Connection,
    group: &str,
    records: &[Record],
) -> Result<Found, RepositoryError> {
    find(
        connection,
        statement(
            "SELECT count(*) OVER () AS total,
               'partition ' || e.partition || ' offset ' || e.record_offset || ' (account ' || e.account_id || ' row '
                 || e.account_seq || ') was passed without an assessment or a dead letter' AS example
             FROM unnest(?, ?, ?, ?, ?) AS e (partition, record_offset, account_id, account_seq, event_id)
             WHERE NOT EXISTS (SELECT FROM risk_assessments r
                               WHERE r.account_id = e.account_id AND r.account_seq = e.account_seq)
               AND NOT EXISTS (SELECT FROM dead_letters d
                               WHERE d.consumer_group = ? AND d.topic = 'transactions.v1'
                                 AND (d.event_id = e.event_id
                                      OR (d.partition = e.partition AND d.record_offset = e.record_offset)))
             ORDER BY e.partition, e.record_offset LIMIT 10",
        )
        .bind::<Array<Integer>, _>(column(records, |record| record.partition))
        .bind::<Array<BigInt>, _>(column(records, |record| record.offset))
        .bind::<Array<Text>, _>(column(records, |record| record.account_id.clone()))
        .bind::<Array<BigInt>, _>(column(records, |record| record.account_seq))
        .bind::<Array<SqlUuid>, _>(column(records, |record| record.event_id))
        .bind::<Text, _>(group),
    )
    .await
}

/// Of records that cannot be handled and that the group has gone past: those without a dead letter.
pub async fn dead_letters_missing_for(
    connection: &mut Connection,
    group: &str,
    partition: i32,
    offsets: &[i64],
) -> Result<Found, RepositoryError> {
    find(
        connection,
        statement(
            "SELECT count(*) OVER () AS total,
               'partition ' || e.partition || ' offset ' || e.record_offset
                 || ' cannot be handled and was passed without a dead letter' AS example
             FROM (SELECT ? AS partition, unnest(?) AS record_offset) AS e
             WHERE NOT EXISTS (SELECT FROM dead_letters d
                               WHERE d.consumer_group = ? AND d.topic = 'transactions.v1'
                                 AND d.partition = e.partition AND d.record_offset = e.record_offset)
             ORDER BY e.record_offset LIMIT 10",
        )
        .bind::<Integer, _>(partition)
        .bind::<Array<BigInt>, _>(offsets)
        .bind::<Text, _>(group),
    )
    .await
}

fn column<'a, T, Item>(items: &'a [Item], value: impl Fn(&'a Item) -> T) -> Vec<T> {
    items.iter().map(value).collect()
}

/// How far an account's events are in the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedAccount {
    /// The account.
    pub account_id: String,
    /// The lowest sequence number seen; more than 1 only where the topic's start is gone.
    pub first_seq: i64,
    /// One past the highest seen.
    pub next_seq: i64,
}

/// Sequence numbers of an account, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceRange {
    /// The account.
    pub account_id: String,
    /// First.
    pub from_seq: i64,
    /// Last.
    pub to_seq: i64,
}

/// Hands over what the topic holds, account by account.
pub async fn insert_published(
    connection: &mut Connection,
    accounts: &[PublishedAccount],
) -> Result<(), RepositoryError> {
    statement("INSERT INTO verify_published SELECT * FROM unnest(?, ?, ?)")
        .bind::<Array<Text>, _>(column(accounts, |account| account.account_id.clone()))
        .bind::<Array<BigInt>, _>(column(accounts, |account| account.first_seq))
        .bind::<Array<BigInt>, _>(column(accounts, |account| account.next_seq))
        .execute(connection)
        .await?;
    Ok(())
}

/// Hands over the sequence numbers below `next_seq` that the topic does not hold.
pub async fn insert_gaps(connection: &mut Connection, gaps: &[SequenceRange]) -> Result<(), RepositoryError> {
    statement("INSERT INTO verify_gaps SELECT * FROM unnest(?, ?, ?)")
        .bind::<Array<Text>, _>(column(gaps, |gap| gap.account_id.clone()))
        .bind::<Array<BigInt>, _>(column(gaps, |gap| gap.from_seq))
        .bind::<Array<BigInt>, _>(column(gaps, |gap| gap.to_seq))
        .execute(connection)
        .await?;
    Ok(())
}

/// Tells the planner how much was handed over.
pub async fn analyze_published(connection: &mut Connection) -> Result<(), RepositoryError> {
    for table in ["ANALYZE verify_published", "ANALYZE verify_gaps"] {
        diesel::sql_query(table).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Rows of an account that are neither in the topic nor in the outbox nor put aside.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Unpublished {
    /// The account.
    #[diesel(sql_type = Text)]
    pub account_id: String,
    /// How many rows.
    #[diesel(sql_type = BigInt)]
    pub rows: i64,
    /// The first of them.
    #[diesel(sql_type = BigInt)]
    pub first_seq: i64,
    /// Whether the topic holds any event of the account.
    #[diesel(sql_type = Bool)]
    pub seen: bool,
}

/// Accounts after `after_account` with unpublished rows beyond what the topic holds, in order, at most `limit`.
pub async fn unpublished(
    connection: &mut Connection,
    after_account: &str,
    limit: i64,
) -> Result<Vec<Unpublished>, RepositoryError> {
    let rows = statement(
        "SELECT a.account_id, count(*) AS rows, min(t.account_seq) AS first_seq, bool_or(p.account_id IS NOT NULL) AS seen
         FROM verify_accounts a
         LEFT JOIN verify_published p ON p.account_id = a.account_id
         JOIN transactions t ON t.account_id = a.account_id
           AND t.account_seq >= coalesce(p.next_seq, 1) AND t.account_seq <= a.account_seq
         WHERE a.account_id > ? AND a.account_seq >= coalesce(p.next_seq, 1)
           AND NOT EXISTS (SELECT FROM verify_outbox o WHERE o.event_id = t.id AND o.topic = 'transactions.v1')
           AND NOT EXISTS (SELECT FROM dead_letters d
                           WHERE d.event_id = t.id AND d.topic = 'transactions.v1' AND d.record_offset IS NULL)
         GROUP BY a.account_id ORDER BY a.account_id LIMIT ?",
    )
    .bind::<Text, _>(after_account)
    .bind::<BigInt, _>(limit)
    .get_results(connection)
    .await?;
    Ok(rows)
}

/// Rows in gaps that wait in the outbox although later ones of their account are in the topic.
pub async fn gaps_in_outbox(connection: &mut Connection) -> Result<Found, RepositoryError> {
    find(
        connection,
        statement(
            "SELECT count(*) OVER () AS total,
               'account ' || t.account_id || ' row ' || t.account_seq
                 || ' is still in the outbox, but later rows are published' AS example
             FROM verify_gaps g
             JOIN transactions t ON t.account_id = g.account_id AND t.account_seq BETWEEN g.from_seq AND g.to_seq
             WHERE EXISTS (SELECT FROM verify_outbox o WHERE o.event_id = t.id AND o.topic = 'transactions.v1')
             ORDER BY t.account_id, t.account_seq LIMIT 10",
        ),
    )
    .await
}

/// Rows in gaps that are nowhere.
pub async fn gaps_missing(connection: &mut Connection) -> Result<Found, RepositoryError> {
    find(
        connection,
        statement(
            "SELECT count(*) OVER () AS total,
               'account ' || t.account_id || ' row ' || t.account_seq || ' (' || t.id
                 || ') is neither in the topic nor in the outbox' AS example
             FROM verify_gaps g
             JOIN transactions t ON t.account_id = g.account_id AND t.account_seq BETWEEN g.from_seq AND g.to_seq
             WHERE NOT EXISTS (SELECT FROM verify_outbox o WHERE o.event_id = t.id AND o.topic = 'transactions.v1')
               AND NOT EXISTS (SELECT FROM dead_letters d
                               WHERE d.event_id = t.id AND d.topic = 'transactions.v1' AND d.record_offset IS NULL)
             ORDER BY t.account_id, t.account_seq LIMIT 10",
        ),
    )
    .await
}

/// Events in the outbox of rows that the ledger does not have.
pub async fn outbox_without_row(connection: &mut Connection) -> Result<Found, RepositoryError> {
    find(
        connection,
        statement(
            "SELECT count(*) OVER () AS total,
               'the outbox holds event ' || o.event_id || ', of which the ledger has no row' AS example
             FROM verify_outbox o
             WHERE o.topic = 'transactions.v1' AND NOT EXISTS (SELECT FROM transactions t WHERE t.id = o.event_id)
             ORDER BY o.event_id LIMIT 10",
        ),
    )
    .await
}

#[derive(QueryableByName)]
struct Matched {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Notes which dead letters the records of the dead-letter topic stand for; a record is named by the group that gave
/// it up and the place that it came from. Answers how many records stand for none.
pub async fn match_dead_letters(
    connection: &mut Connection,
    records: &[(String, String, i32, i64)],
) -> Result<i64, RepositoryError> {
    let matched: Matched = statement(
        "WITH found AS (
           INSERT INTO verify_sent
           SELECT d.id FROM unnest(?, ?, ?, ?) AS e (consumer_group, topic, partition, record_offset)
           JOIN dead_letters d USING (consumer_group, topic, partition, record_offset)
           RETURNING 1)
         SELECT count(*) AS count FROM found",
    )
    .bind::<Array<Text>, _>(column(records, |record| record.0.clone()))
    .bind::<Array<Text>, _>(column(records, |record| record.1.clone()))
    .bind::<Array<Integer>, _>(column(records, |record| record.2))
    .bind::<Array<BigInt>, _>(column(records, |record| record.3))
    .get_result(connection)
    .await?;
    let given = i64::try_from(records.len()).unwrap_or(i64::MAX);
    Ok((given - matched.count).max(0))
}

/// Dead letters of the remembered moment that are neither in the outbox nor in the dead-letter topic.
pub async fn dead_letters_unsent(connection: &mut Connection) -> Result<Found, RepositoryError> {
    find(
        connection,
        statement(
            "SELECT count(*) OVER () AS total,
               'dead letter ' || d.id || ' (' || d.topic || '/' || d.partition || ' offset ' || d.record_offset
                 || ') is neither in the outbox nor in the dead-letter topic' AS example
             FROM verify_dead_letters d
             WHERE d.record_offset IS NOT NULL
               AND NOT EXISTS (SELECT FROM verify_outbox o WHERE o.event_id = d.id)
               AND NOT EXISTS (SELECT FROM verify_sent s WHERE s.id = d.id)
             ORDER BY d.id LIMIT 10",
        ),
    )
    .await
}
