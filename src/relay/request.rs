//! One partition's rows as requests to the broker, one after the other.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::partitions::Partition;
use crate::{
    broker::{Broker, BrokerError, OutgoingRecord},
    event::{Headers, cloud_event_headers},
    repository::outbox::{OutboxRow, OutboxRowId, RejectedRow},
};

/// Kafka takes 1 MiB a request unless told otherwise.
const REQUEST_BYTES_MAX: usize = 900_000;
/// Headers and framing.
const RECORD_OVERHEAD_BYTES: usize = 300;
const TOO_LARGE: &str = "record_too_large";
const INVALID: &str = "record_invalid";
/// Invalid records one after the other beyond which the topic is to blame, and its rows stay.
const INVALID_IN_A_ROW_MAX: usize = 20;

/// What became of one partition's rows. Those that are neither published nor parked stay.
pub(super) struct Outcome {
    pub(super) partition: Partition,
    /// What the broker has.
    pub(super) published: Vec<OutboxRowId>,
    /// What the broker will never take.
    pub(super) parked: Vec<RejectedRow>,
    /// Invalid ones, one after the other, since the last that was published.
    pub(super) invalid_in_a_row: usize,
    /// Why the rest was not tried.
    pub(super) error: Option<BrokerError>,
}

/// Publishes the rows in order. After a failure nothing more is sent: a later row of the same key must not overtake.
/// `invalid_in_a_row` is what the partition's last batch ended with.
pub(super) async fn publish(
    broker: &dyn Broker,
    partition: Partition,
    rows: Vec<OutboxRow>,
    invalid_in_a_row: usize,
) -> Outcome {
    let mut outcome =
        Outcome { partition, published: Vec::new(), parked: Vec::new(), invalid_in_a_row, error: None };
    let mut requests = into_requests(&rows);
    let mut invalid = Vec::new();
    while let Some(range) = requests.pop_front() {
        let part = rows.get(range.clone()).unwrap_or_default();
        let published_at = Utc::now();
        let records = part.iter().map(|row| record(row, published_at)).collect();
        match broker.produce(&outcome.partition.topic, outcome.partition.number, records).await {
            Ok(()) => {
                outcome.parked.append(&mut invalid);
                outcome.invalid_in_a_row = 0;
                outcome.published.extend(part.iter().map(OutboxRow::row_id));
            }
            Err(error) if error.concerns_a_record() && part.len() > 1 => {
                let middle = range.start + part.len() / 2;
                requests.push_front(middle..range.end);
                requests.push_front(range.start..middle);
            }
            Err(error @ BrokerError::RecordTooLarge) => {
                outcome.parked.extend(part.iter().map(|row| parked(row, outcome.partition.number, &error)));
            }
            Err(error @ BrokerError::RecordInvalid { .. }) => {
                invalid.extend(part.iter().map(|row| parked(row, outcome.partition.number, &error)));
                outcome.invalid_in_a_row += part.len();
                let in_a_row = outcome.invalid_in_a_row;
                if in_a_row > INVALID_IN_A_ROW_MAX {
                    let detail = format!("{in_a_row} records of {} in a row: {error}", outcome.partition);
                    outcome.error = Some(BrokerError::Refused { detail });
                    invalid.clear();
                    break;
                }
            }
            Err(error) => {
                outcome.error = Some(error);
                break;
            }
        }
    }
    outcome.parked.append(&mut invalid);
    count(&outcome);
    outcome
}

/// Ranges of rows that fit into one request each; a row that is too large by itself stands alone.
fn into_requests(rows: &[OutboxRow]) -> VecDeque<Range<usize>> {
    let mut requests = VecDeque::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, row) in rows.iter().enumerate() {
        let size = size(row);
        if index > start && bytes + size > REQUEST_BYTES_MAX {
            requests.push_back(start..index);
            (start, bytes) = (index, 0);
        }
        bytes += size;
    }
    if start < rows.len() {
        requests.push_back(start..rows.len());
    }
    requests
}

fn size(row: &OutboxRow) -> usize {
    row.bytes() + RECORD_OVERHEAD_BYTES
}

fn headers(row: &OutboxRow) -> Headers {
    let as_they_are = row.headers.as_ref().and_then(Headers::from_json);
    as_they_are.unwrap_or_else(|| {
        cloud_event_headers(row.event_id, &row.event_type, row.created_at, row.traceparent.as_deref())
    })
}

/// Brokers throw records away by the age of their timestamp. An event may tell of something that is older than that,
/// as after an import of history, so the timestamp is that of its publication; `ce_time` tells when it happened.
fn record(row: &OutboxRow, published_at: DateTime<Utc>) -> OutgoingRecord {
    OutgoingRecord {
        key: row.key.as_deref().map(Bytes::copy_from_slice),
        value: row.value.as_deref().map(Bytes::copy_from_slice),
        headers: headers(row),
        timestamp: published_at,
    }
}

fn parked(row: &OutboxRow, partition: i32, error: &BrokerError) -> RejectedRow {
    RejectedRow {
        row: row.clone(),
        headers: headers(row),
        partition,
        reason: if matches!(error, BrokerError::RecordTooLarge) { TOO_LARGE } else { INVALID },
        error: format!("{error}: {} bytes", size(row)),
    }
}

fn count(outcome: &Outcome) {
    let topic = outcome.partition.topic.clone();
    let published = u64::try_from(outcome.published.len()).unwrap_or(u64::MAX);
    metrics::counter!("ledger_relay_published_total", "topic" => topic).increment(published);
    let reason = match &outcome.error {
        None => return,
        Some(BrokerError::Unavailable { .. }) => "unavailable",
        Some(BrokerError::NoSuchTopic(_)) => "no_such_topic",
        Some(_) => "refused",
    };
    metrics::counter!("ledger_relay_errors_total", "reason" => reason).increment(1);
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use uuid::Uuid;

    use super::*;

    fn row(bytes: usize) -> OutboxRow {
        OutboxRow {
            lane: 0,
            id: 0,
            topic: "t".into(),
            key: None,
            value: Some(vec![0; bytes]),
            event_id: Uuid::nil(),
            event_type: "T.v1".into(),
            created_at: Utc::now(),
            traceparent: Some("00-1-2-01".into()),
            headers: None,
        }
    }

    #[test]
    fn requests_are_bounded_in_bytes_and_cover_every_row_once() {
        let rows: Vec<OutboxRow> = [400_000, 400_000, 400_000, 2_000_000, 1, 1].map(row).into();
        assert_eq!(into_requests(&rows), [0..2, 2..3, 3..4, 4..6]);
        assert!(into_requests(&[]).is_empty());
    }

    /// With the row's own time as the timestamp Kafka deleted imported events before they were consumed.
    #[test]
    fn an_event_of_long_ago_is_as_young_as_its_publication() {
        let (now, long_ago) = (Utc::now(), Utc::now() - TimeDelta::days(400));
        let record = record(&OutboxRow { created_at: long_ago, ..row(1) }, now);
        assert_eq!(record.timestamp, now);
        let time = record.headers.attribute("ce_time").expect("ce_time");
        assert!(time.starts_with(&long_ago.format("%Y-%m-%dT%H:%M").to_string()));
    }

    #[test]
    fn headers_of_the_row_win_over_the_cloud_events_ones() {
        let mut row = row(1);
        assert_eq!(headers(&row).attribute("traceparent"), Some("00-1-2-01"));
        row.headers = Some(serde_json::json!([["a", "eA=="]]));
        assert_eq!(headers(&row), [("a", "x")].into());
    }
}
