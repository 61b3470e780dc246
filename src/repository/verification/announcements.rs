//! Assessments against what was published of them. Call [`super::snapshot`] first: the temporary tables are its.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{Bind, Connection, Found, RepositoryError, find, statement};

/// A published assessment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Whose row.
    pub account_id: String,
    /// Which row.
    pub account_seq: i64,
    /// The row's id.
    pub transaction_id: Uuid,
    /// 0–100.
    pub risk_score: i16,
    /// `low`, `medium` or `high`.
    pub risk_level: String,
    /// Which rules.
    pub ruleset: String,
}

/// Takes note of these, and answers which of them tell of no assessment, or tell it differently.
pub async fn announcements_unlike(
    connection: &mut Connection,
    announcements: &[Announcement],
) -> Result<Found, RepositoryError> {
    let (accounts, seqs): (Vec<&str>, Vec<i64>) =
        announcements.iter().map(|event| (event.account_id.as_str(), event.account_seq)).unzip();
    let ids: Vec<Uuid> = announcements.iter().map(|event| event.transaction_id).collect();
    let scores: Vec<i16> = announcements.iter().map(|event| event.risk_score).collect();
    let levels: Vec<&str> = announcements.iter().map(|event| event.risk_level.as_str()).collect();
    let rulesets: Vec<&str> = announcements.iter().map(|event| event.ruleset.as_str()).collect();
    find(
        connection,
        statement(
            "WITH e AS MATERIALIZED (
               SELECT * FROM unnest(?, ?, ?, ?, ?, ?)
                 AS e (account_id, account_seq, transaction_id, risk_score, risk_level, ruleset)),
             noted AS (INSERT INTO verify_announced SELECT transaction_id FROM e)
             SELECT count(*) OVER () AS total,
               'account ' || e.account_id || ' row ' || e.account_seq || ' is announced as ' || e.risk_score || ' '
                 || e.risk_level || ' by ' || e.ruleset || ', but its assessment is '
                 || coalesce(r.risk_score || ' ' || r.risk_level || ' by ' || r.ruleset, 'not there') AS example
             FROM e LEFT JOIN risk_assessments r ON r.account_id = e.account_id AND r.account_seq = e.account_seq
             WHERE (r.transaction_id, r.risk_score, r.risk_level, r.ruleset)
                     IS DISTINCT FROM (e.transaction_id, e.risk_score, e.risk_level, e.ruleset)
             ORDER BY e.account_id, e.account_seq LIMIT 10",
        )
        .bind::<Array<Text>, _>(accounts)
        .bind::<Array<BigInt>, _>(seqs)
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<SmallInt>, _>(scores)
        .bind::<Array<Text>, _>(levels)
        .bind::<Array<Text>, _>(rulesets),
    )
    .await
}

/// Assessments of the remembered moment that are neither in the topic, nor in the outbox, nor set aside by the relay; of
/// those since `from`, if it is given.
pub async fn unannounced(
    connection: &mut Connection,
    from: Option<DateTime<Utc>>,
) -> Result<Found, RepositoryError> {
    diesel::sql_query("ANALYZE verify_announced").execute(&mut *connection).await?;
    find(
        connection,
        statement(
            "WITH missing AS MATERIALIZED (
               SELECT a.account_id, a.account_seq FROM verify_assessments a
               WHERE NOT EXISTS (SELECT FROM verify_announced e WHERE e.transaction_id = a.transaction_id)
                 AND NOT EXISTS (SELECT FROM verify_announcing o WHERE o.transaction_id = a.transaction_id)
                 AND coalesce(a.assessed_at >= ?, true))
             SELECT count(*) OVER () AS total,
               'the assessment of account ' || account_id || ' row ' || account_seq
                 || ' is neither in the topic nor in the outbox' AS example
             FROM missing ORDER BY account_id, account_seq LIMIT 10",
        )
        .bind::<Nullable<Timestamptz>, _>(from),
    )
    .await
}
