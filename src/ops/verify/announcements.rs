//! The check of the topic of assessments, from its first record: each assessment has an event there or in the outbox,
//! and each event equals its assessment.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    report::Check,
    topic::{PartitionReader, TopicHistory, partitions},
};
use crate::{
    broker::{Broker, FetchedRecord},
    event::{RISK_ASSESSED, RISK_ASSESSMENTS_TOPIC, RiskAssessed},
    repository::{
        Connection, read_clock,
        verification::{self, Findings, PublishedAssessment},
    },
};

/// How much earlier than its record an assessment may be dated: the clocks of relay and consumer may differ, and
/// publishing takes time.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(5);
/// The most events in one statement.
const CHUNK_SIZE_MAX: usize = 5_000;

/// Reads the topic up to its current end. Call it after the snapshot.
pub(super) async fn check(
    connection: &mut Connection,
    broker: &dyn Broker,
    history: TopicHistory,
) -> anyhow::Result<Check> {
    let (mut found, mut records_read, mut foreign) = (Findings::default(), 0, 0);
    // The events of earlier assessments may be in another broker, or among the records that retention removed.
    let mut checked_from: Option<DateTime<Utc>> = history.moved_at.map(|at| at + CLOCK_TOLERANCE);
    let now = read_clock(connection).await?.shown;
    for partition in 0..partitions(broker, RISK_ASSESSMENTS_TOPIC).await? {
        let mut reader = PartitionReader::open(broker, RISK_ASSESSMENTS_TOPIC, partition).await?;
        let trimmed = reader.range.earliest > 0;
        let mut first_published_at = None;
        while let Some(records) = reader.read().await? {
            let ours = || records.iter().find(|record| announcement(record).is_some());
            first_published_at =
                first_published_at.or_else(|| ours().map(|record| record.timestamp + CLOCK_TOLERANCE));
            let events: Vec<PublishedAssessment> = records.iter().filter_map(announcement).collect();
            records_read += records.len();
            foreign += records.len() - events.len();
            for chunk in events.chunks(CHUNK_SIZE_MAX) {
                found.add(verification::announcement_mismatches(connection, chunk).await?);
            }
        }
        if trimmed {
            checked_from = checked_from.max(Some(first_published_at.unwrap_or(now)));
        }
    }
    found.add(verification::unannounced(connection, checked_from).await?);
    let assessments = verification::table_counts(connection).await?.assessments;
    let check =
        Check::of("announcements", "each assessment has an event with the same content", assessments, found);
    let mut note = format!("{records_read} records in {RISK_ASSESSMENTS_TOPIC}");
    if foreign > 0 {
        note += &format!(", {foreign} of them are not RiskAssessed events");
    }
    if let Some(from) = checked_from {
        let why = match history.moved_at {
            Some(_) => "earlier events are in another broker",
            None => "retention removed its start",
        };
        note += &format!("; {why}: assessments before {from} cannot be checked");
    }
    Ok(if records_read > 0 || checked_from.is_some() { check.with_note(note) } else { check })
}

/// Decodes a RiskAssessed event; None for any other record.
fn announcement(record: &FetchedRecord) -> Option<PublishedAssessment> {
    if record.headers.attribute("ce_type") != Some(RISK_ASSESSED) {
        return None;
    }
    let event: RiskAssessed = serde_json::from_slice(record.value.as_deref()?).ok()?;
    let reasons = serde_json::to_string(&event.reasons).ok()?;
    let shadow_reasons = serde_json::to_string(&event.shadow_reasons).ok()?;
    let rule_errors = match event.rule_errors.as_slice() {
        [] => None,
        errors => Some(serde_json::to_string(errors).ok()?),
    };
    (record.key.as_deref() == Some(event.account_id.as_bytes())).then_some(PublishedAssessment {
        account_id: event.account_id,
        account_seq: event.account_seq,
        transaction_id: event.transaction_id,
        risk_score: event.risk_score,
        risk_level: event.risk_level,
        ruleset: event.ruleset,
        reasons,
        shadow_reasons,
        rule_errors,
        assessed_at: event.assessed_at,
    })
}
