//! Compares assessments with the RiskAssessed events that were published. Call [`super::snapshot()`] first: it creates
//! the temporary tables.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::SimpleAsyncConnection;
use uuid::Uuid;

use super::{
    super::{Bind, Connection, RepositoryError, statement},
    findings::{Findings, find},
};

/// The assessment in a published event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedAssessment {
    /// The account.
    pub account_id: String,
    /// The transaction's sequence number in the account.
    pub account_seq: i64,
    /// The transaction's id.
    pub transaction_id: Uuid,
    /// The score, 0–100.
    pub risk_score: i16,
    /// `low`, `medium` or `high`.
    pub risk_level: String,
    /// The version of the rule set.
    pub ruleset: String,
    /// The reasons, as the JSON that the ledger keeps.
    pub reasons: String,
    /// The reasons of shadow rules, in the same form.
    pub shadow_reasons: String,
    /// The rules that failed. None: no rule failed.
    pub rule_errors: Option<String>,
    /// The time of the assessment.
    pub assessed_at: DateTime<Utc>,
}

/// Records these events as published, and finds the events whose assessment is missing or differs.
pub async fn announcement_mismatches(
    connection: &mut Connection,
    published: &[PublishedAssessment],
) -> Result<Findings, RepositoryError> {
    let (accounts, seqs): (Vec<&str>, Vec<i64>) =
        published.iter().map(|event| (event.account_id.as_str(), event.account_seq)).unzip();
    let ids: Vec<Uuid> = published.iter().map(|event| event.transaction_id).collect();
    let scores: Vec<i16> = published.iter().map(|event| event.risk_score).collect();
    let levels: Vec<&str> = published.iter().map(|event| event.risk_level.as_str()).collect();
    let rulesets: Vec<&str> = published.iter().map(|event| event.ruleset.as_str()).collect();
    let reasons: Vec<&str> = published.iter().map(|event| event.reasons.as_str()).collect();
    let shadow_reasons: Vec<&str> = published.iter().map(|event| event.shadow_reasons.as_str()).collect();
    let rule_errors: Vec<Option<&str>> = published.iter().map(|event| event.rule_errors.as_deref()).collect();
    let assessed_ats: Vec<DateTime<Utc>> = published.iter().map(|event| event.assessed_at).collect();
    find(
        connection,
        statement(include_str!("announcements/mismatches.sql"))
            .bind::<Array<Text>, _>(accounts)
            .bind::<Array<BigInt>, _>(seqs)
            .bind::<Array<SqlUuid>, _>(ids)
            .bind::<Array<SmallInt>, _>(scores)
            .bind::<Array<Text>, _>(levels)
            .bind::<Array<Text>, _>(rulesets)
            .bind::<Array<Text>, _>(reasons)
            .bind::<Array<Text>, _>(shadow_reasons)
            .bind::<Array<Timestamptz>, _>(assessed_ats)
            .bind::<Array<Nullable<Text>>, _>(rule_errors),
    )
    .await
}

/// Finds assessments of the snapshot whose event is neither in the topic, nor in the outbox, nor dead-lettered by the
/// relay. With `from`, only assessments since then.
pub async fn unannounced(
    connection: &mut Connection,
    from: Option<DateTime<Utc>>,
) -> Result<Findings, RepositoryError> {
    connection.batch_execute("ANALYZE verify_announced").await?;
    find(
        connection,
        statement(include_str!("announcements/unannounced.sql")).bind::<Nullable<Timestamptz>, _>(from),
    )
    .await
}
