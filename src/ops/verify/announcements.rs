//! The topic of assessments from its first record: each assessment is announced there, or still in the outbox, and each
//! announcement tells of its assessment.

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    report::Check,
    topic::{PartitionReader, partitions},
};
use crate::{
    broker::{Broker, FetchedRecord},
    event::{RISK_ASSESSED, RISK_ASSESSMENTS_TOPIC, RiskAssessed},
    repository::{
        Connection,
        verification::{self, Announcement, Found},
    },
};

/// A record has the time of its relay, an assessment that of its consumer, and publishing takes a while.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(5);
/// Announcements in one statement.
const CHUNK_SIZE_MAX: usize = 5_000;

/// Reads the topic up to where it ends now, which must be after the snapshot.
pub(super) async fn check(connection: &mut Connection, broker: &dyn Broker) -> anyhow::Result<Check> {
    let (mut unlike, mut records_read, mut foreign) = (Found::default(), 0, 0);
    // What was assessed before this moment may have been announced in records that retention has removed.
    let mut judged_from: Option<DateTime<Utc>> = None;
    for partition in 0..partitions(broker, RISK_ASSESSMENTS_TOPIC).await? {
        let mut reader = PartitionReader::open(broker, RISK_ASSESSMENTS_TOPIC, partition).await?;
        let trimmed = reader.range.earliest > 0;
        let mut first_published_at = None;
        while let Some(records) = reader.read().await? {
            let ours = || records.iter().find(|record| announcement(record).is_some());
            first_published_at =
                first_published_at.or_else(|| ours().map(|record| record.timestamp + CLOCKS_DIFFER));
            let events: Vec<Announcement> = records.iter().filter_map(announcement).collect();
            records_read += records.len();
            foreign += records.len() - events.len();
            for chunk in events.chunks(CHUNK_SIZE_MAX) {
                unlike.add(verification::announcements_unlike(connection, chunk).await?);
            }
        }
        if trimmed {
            judged_from = judged_from.max(Some(first_published_at.unwrap_or_else(Utc::now)));
        }
    }
    let mut found = unlike;
    found.add(verification::unannounced(connection, judged_from).await?);
    let assessments = verification::counts(connection).await?.assessments;
    let check = Check::of("announcements", "each assessment is announced as it is", assessments, found);
    let mut note = format!("{records_read} records in {RISK_ASSESSMENTS_TOPIC}");
    if foreign > 0 {
        note += &format!(", {foreign} of them no events of ours");
    }
    if let Some(from) = judged_from {
        note += &format!("; retention removed its start: what was assessed before {from} cannot be judged");
    }
    Ok(if records_read > 0 || judged_from.is_some() { check.with_note(note) } else { check })
}

/// A record as an event of ours, if it is one.
fn announcement(record: &FetchedRecord) -> Option<Announcement> {
    if record.headers.attribute("ce_type") != Some(RISK_ASSESSED) {
        return None;
    }
    let event: RiskAssessed = serde_json::from_slice(record.value.as_deref()?).ok()?;
    (record.key.as_deref() == Some(event.account_id.as_bytes())).then_some(Announcement {
        account_id: event.account_id,
        account_seq: event.account_seq,
        transaction_id: event.transaction_id,
        risk_score: event.risk_score,
        risk_level: event.risk_level,
        ruleset: event.ruleset,
    })
}
