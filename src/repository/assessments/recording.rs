//! Records a batch of assessments, with their events and the marks of their days, in one statement.
//!
//! Guarantees:
//!
//! - A transaction has at most one assessment, ever.
//! - A `RiskAssessed` event is written for exactly the assessments that were written, for each account in the order of
//!   the batch.
//!
//! Deliberately absent: the check of the lease and the position. The caller adds both to the same database transaction.

use chrono::{DateTime, NaiveDate, Utc};
use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Binary, Date, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::level::LevelColumn;
use crate::{
    domain::{RiskLevel, fact_marks},
    event::lane_of,
    repository::{Bind, Connection, RepositoryError, mark_columns::MarkColumns, statement},
};

/// An assessment to write, with its `RiskAssessed` event.
#[derive(Debug, Clone)]
pub struct NewAssessment {
    /// The account.
    pub account_id: String,
    /// The transaction's number in the account.
    pub account_seq: i64,
    /// The assessed transaction.
    pub transaction_id: Uuid,
    /// The transaction's UTC day.
    pub day: NaiveDate,
    /// The score, 0 to 100.
    pub risk_score: i16,
    /// The level of the score.
    pub risk_level: RiskLevel,
    /// JSON array of `{rule, score, reason}`, one for each live rule that fired.
    pub reasons: String,
    /// JSON array of the same form, for rules in shadow mode.
    pub shadow_reasons: String,
    /// JSON array of `{rule, mode, error}`, one for each rule that failed. None: no rule failed.
    pub rule_errors: Option<String>,
    /// The id of the `RiskAssessed` event.
    pub event_id: Uuid,
    /// The value of the event.
    pub event_value: Vec<u8>,
    /// The W3C trace context of the event that was assessed.
    pub traceparent: Option<String>,
}

/// The number of assessments of one level that were written.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct WrittenAssessments {
    /// The level.
    #[diesel(sql_type = Text, deserialize_as = LevelColumn)]
    pub risk_level: RiskLevel,
    /// The number of assessments.
    #[diesel(sql_type = BigInt)]
    pub count: i64,
}

/// The binds of the statement: one array for each column, with one element for each assessment.
#[derive(Default)]
struct Columns<'a> {
    account_ids: Vec<&'a str>,
    account_seqs: Vec<i64>,
    transaction_ids: Vec<Uuid>,
    risk_scores: Vec<i16>,
    risk_levels: Vec<&'a str>,
    reasons: Vec<&'a str>,
    shadow_reasons: Vec<&'a str>,
    rule_errors: Vec<Option<&'a str>>,
    lanes: Vec<i16>,
    keys: Vec<&'a [u8]>,
    event_ids: Vec<Uuid>,
    event_values: Vec<&'a [u8]>,
    traceparents: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    /// Sorts the batch by lane, and keeps its order within a lane: a relay reads one lane at a time.
    fn of(batch: &'a [NewAssessment]) -> Self {
        let lane = |row: &'a NewAssessment| (lane_of(row.account_id.as_bytes()), row);
        let mut rows: Vec<(i16, &NewAssessment)> = batch.iter().map(lane).collect();
        rows.sort_by_key(|(lane, _)| *lane);
        let mut columns = Self::default();
        for (lane, row) in rows {
            columns.account_ids.push(&row.account_id);
            columns.account_seqs.push(row.account_seq);
            columns.transaction_ids.push(row.transaction_id);
            columns.risk_scores.push(row.risk_score);
            columns.risk_levels.push(row.risk_level.as_str());
            columns.reasons.push(&row.reasons);
            columns.shadow_reasons.push(&row.shadow_reasons);
            columns.rule_errors.push(row.rule_errors.as_deref());
            columns.lanes.push(lane);
            columns.keys.push(row.account_id.as_bytes());
            columns.event_ids.push(row.event_id);
            columns.event_values.push(&row.event_value);
            columns.traceparents.push(row.traceparent.as_deref());
        }
        columns
    }
}

/// Writes the assessments of transactions that have none yet, with their events and marks. Returns the number of
/// written assessments for each level.
pub async fn record(
    connection: &mut Connection,
    batch: &[NewAssessment],
    ruleset: &str,
    assessed_at: DateTime<Utc>,
) -> Result<Vec<WrittenAssessments>, RepositoryError> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let columns = Columns::of(batch);
    let marks = MarkColumns::of(&fact_marks(batch.iter().map(|row| (row.day, row.transaction_id))));
    let written = statement(include_str!("record.sql"))
        .bind::<Array<Text>, _>(columns.account_ids)
        .bind::<Array<BigInt>, _>(columns.account_seqs)
        .bind::<Array<SqlUuid>, _>(columns.transaction_ids)
        .bind::<Array<SmallInt>, _>(columns.risk_scores)
        .bind::<Array<Text>, _>(columns.risk_levels)
        .bind::<Array<Text>, _>(columns.reasons)
        .bind::<Array<Text>, _>(columns.shadow_reasons)
        .bind::<Text, _>(ruleset)
        .bind::<Timestamptz, _>(assessed_at)
        .bind::<Array<SmallInt>, _>(columns.lanes)
        .bind::<Array<Binary>, _>(columns.keys)
        .bind::<Array<Binary>, _>(columns.event_values)
        .bind::<Array<SqlUuid>, _>(columns.event_ids)
        .bind::<Array<Nullable<Text>>, _>(columns.traceparents)
        .bind::<Array<Date>, _>(marks.days)
        .bind::<Array<Nullable<Text>>, _>(columns.rule_errors)
        .bind::<Array<SqlUuid>, _>(marks.begin_ids)
        .bind::<Array<SqlUuid>, _>(marks.end_ids)
        .get_results(connection)
        .await?;
    Ok(written)
}
