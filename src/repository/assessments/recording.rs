//! Risk assessments: writing a batch of them with everything that must be true together.
//!
//! Guarantees: one live assessment per transaction, ever; `RiskAssessed` is announced only for rows that were really
//! written, in the same statement, for each account in the order of the batch. The caller adds the fence and the position.

use chrono::{DateTime, NaiveDate, Utc};
use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Binary, Date, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::{
    event::lane_of,
    repository::{Bind, Connection, RepositoryError, statement},
};

/// An assessment to write, with the event that announces it.
#[derive(Debug, Clone)]
pub struct NewAssessment {
    /// The account.
    pub account_id: String,
    /// Its row's number.
    pub account_seq: i64,
    /// The row.
    pub transaction_id: Uuid,
    /// UTC day of the row: what the facts must rebuild.
    pub day: NaiveDate,
    /// 0–100.
    pub risk_score: i16,
    /// `low`, `medium` or `high`.
    pub risk_level: &'static str,
    /// JSON array of the reasons.
    pub reasons: String,
    /// JSON array of the shadow rules' reasons.
    pub shadow_reasons: String,
    /// Id of the `RiskAssessed` event.
    pub event_id: Uuid,
    /// Its value.
    pub event_value: Vec<u8>,
    /// Of the event that caused it.
    pub traceparent: Option<String>,
}

/// How many assessments of a level were written.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Written {
    /// `low`, `medium` or `high`.
    #[diesel(sql_type = Text)]
    pub risk_level: String,
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub count: i64,
}

#[derive(Default)]
struct Columns<'a> {
    account_ids: Vec<&'a str>,
    account_seqs: Vec<i64>,
    transaction_ids: Vec<Uuid>,
    days: Vec<NaiveDate>,
    risk_scores: Vec<i16>,
    risk_levels: Vec<&'a str>,
    reasons: Vec<&'a str>,
    shadow_reasons: Vec<&'a str>,
    lanes: Vec<i16>,
    keys: Vec<&'a [u8]>,
    event_ids: Vec<Uuid>,
    event_values: Vec<&'a [u8]>,
    traceparents: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    /// Lane by lane, each in the order of the batch: a relay reads a lane at a time.
    fn of(batch: &'a [NewAssessment]) -> Self {
        let lane = |row: &'a NewAssessment| (lane_of(row.account_id.as_bytes()), row);
        let mut rows: Vec<(i16, &NewAssessment)> = batch.iter().map(lane).collect();
        rows.sort_by_key(|(lane, _)| *lane);
        let mut columns = Self::default();
        for (lane, row) in rows {
            columns.account_ids.push(&row.account_id);
            columns.account_seqs.push(row.account_seq);
            columns.transaction_ids.push(row.transaction_id);
            columns.days.push(row.day);
            columns.risk_scores.push(row.risk_score);
            columns.risk_levels.push(row.risk_level);
            columns.reasons.push(&row.reasons);
            columns.shadow_reasons.push(&row.shadow_reasons);
            columns.lanes.push(lane);
            columns.keys.push(row.account_id.as_bytes());
            columns.event_ids.push(row.event_id);
            columns.event_values.push(&row.event_value);
            columns.traceparents.push(row.traceparent.as_deref());
        }
        columns
    }
}

/// Writes those that have no assessment yet, announces them and marks their days. Answers how many of
/// each level were written.
pub async fn record(
    connection: &mut Connection,
    batch: &[NewAssessment],
    ruleset: &str,
    assessed_at: DateTime<Utc>,
) -> Result<Vec<Written>, RepositoryError> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let columns = Columns::of(batch);
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
        .bind::<Array<Date>, _>(columns.days)
        .get_results(connection)
        .await?;
    Ok(written)
}
