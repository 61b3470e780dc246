//! Publishes the rows of one partition, one request at a time.

use std::{collections::VecDeque, ops::Range};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::partitions::Partition;
use crate::{
    broker::{Broker, BrokerError, OutgoingRecord, REQUEST_BYTES_MAX},
    event::{Headers, cloud_event_headers},
    repository::outbox::{OutboxRow, OutboxRowId, RejectedRow},
    runtime::{DatabaseClock, EventSpans, is_sampled},
};

/// The size of headers and framing.
const RECORD_OVERHEAD_BYTES: usize = 300;
const TOO_LARGE: &str = "record_too_large";
const INVALID: &str = "record_invalid";
/// With more consecutive invalid records than this, the topic is at fault: its rows stay in the outbox.
const INVALID_IN_A_ROW_MAX: usize = 20;

/// The result of publishing the rows of one partition. Rows that are neither published nor dead-lettered stay.
pub(super) struct Outcome {
    pub(super) partition: Partition,
    /// Rows that the broker has stored.
    pub(super) published: Vec<OutboxRowId>,
    /// Rows that the broker will never accept.
    pub(super) dead_lettered: Vec<RejectedRow>,
    /// Consecutive invalid records since the last published one.
    pub(super) invalid_in_a_row: usize,
    /// Why the remaining rows were not sent.
    pub(super) error: Option<BrokerError>,
}

/// Publishes the rows in order. After a failure nothing more is sent, so that no row overtakes another of its key.
/// `invalid_in_a_row` is the value after the partition's last batch.
pub(super) async fn publish(
    broker: &dyn Broker,
    clock: &DatabaseClock,
    partition: Partition,
    rows: Vec<OutboxRow>,
    invalid_in_a_row: usize,
) -> Outcome {
    let mut outcome = Outcome {
        partition,
        published: Vec::new(),
        dead_lettered: Vec::new(),
        invalid_in_a_row,
        error: None,
    };
    let mut requests = into_requests(&rows);
    let mut invalid = Vec::new();
    while let Some(range) = requests.pop_front() {
        let part = rows.get(range.clone()).unwrap_or_default();
        let published_at = clock.now();
        let records = part.iter().map(|row| record(row, published_at)).collect();
        let sending = spans(&outcome.partition, part, published_at);
        match broker.produce(&outcome.partition.topic, outcome.partition.number, records).await {
            Ok(()) => {
                sending.succeed();
                outcome.dead_lettered.append(&mut invalid);
                outcome.invalid_in_a_row = 0;
                outcome.published.extend(part.iter().map(OutboxRow::row_id));
            }
            Err(error) if error.concerns_a_record() && part.len() > 1 => {
                let middle = range.start + part.len() / 2;
                requests.push_front(middle..range.end);
                requests.push_front(range.start..middle);
            }
            Err(error @ BrokerError::RecordTooLarge) => {
                outcome
                    .dead_lettered
                    .extend(part.iter().map(|row| dead_lettered(row, outcome.partition.number, &error)));
            }
            Err(error @ BrokerError::RecordInvalid { .. }) => {
                invalid.extend(part.iter().map(|row| dead_lettered(row, outcome.partition.number, &error)));
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
    outcome.dead_lettered.append(&mut invalid);
    count(&outcome);
    outcome
}

/// Returns a span for each row that belongs to a sampled trace. It ends with the acknowledgement of the broker. The time
/// since the row was written is an attribute.
fn spans(partition: &Partition, rows: &[OutboxRow], published_at: DateTime<Utc>) -> EventSpans {
    let mut spans = EventSpans::default();
    for row in rows {
        let Some(traceparent) = row.traceparent.as_deref().filter(|text| is_sampled(text)) else { continue };
        let span = tracing::info_span!(
            target: "ledger::events",
            "publish",
            otel.name = %format_args!("publish {}", partition.topic),
            otel.kind = "producer",
            otel.status_code = tracing::field::Empty,
            messaging.operation.r#type = "send",
            messaging.destination.name = partition.topic,
            messaging.destination.partition.id = partition.number,
            messaging.message.id = %row.event_id,
            ledger.outbox.wait_ms = (published_at - row.created_at).num_milliseconds(),
        );
        spans.add(span, traceparent);
    }
    spans
}

/// Splits the rows into ranges that fit into one request each. A row that is too large gets a request of its own.
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
    let stored = row.headers.as_ref().and_then(Headers::from_json);
    stored.unwrap_or_else(|| {
        cloud_event_headers(row.event_id, &row.event_type, row.created_at, row.traceparent.as_deref())
    })
}

/// Makes a record with the time of publication as its timestamp. Brokers delete records by the age of the timestamp, and
/// an event may be older than the retention, as after an import of history. They refuse timestamps of the future. So the
/// timestamp comes from the database's clock and not from this machine's. `ce_time` holds the time of the event.
fn record(row: &OutboxRow, published_at: DateTime<Utc>) -> OutgoingRecord {
    OutgoingRecord {
        key: row.key.as_deref().map(Bytes::copy_from_slice),
        value: row.value.as_deref().map(Bytes::copy_from_slice),
        headers: headers(row),
        timestamp: published_at,
    }
}

fn dead_lettered(row: &OutboxRow, partition: i32, error: &BrokerError) -> RejectedRow {
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

    use super::*;

    fn row(bytes: usize) -> OutboxRow {
        OutboxRow {
            value: Some(vec![0; bytes]),
            traceparent: Some("00-1-2-01".into()),
            ..OutboxRow::default()
        }
    }

    #[test]
    fn requests_are_bounded_in_bytes_and_cover_every_row_once() {
        let rows: Vec<OutboxRow> = [400_000, 400_000, 400_000, 2_000_000, 1, 1].map(row).into();
        assert_eq!(into_requests(&rows), [0..2, 2..3, 3..4, 4..6]);
        assert!(into_requests(&[]).is_empty());
    }

    /// Seen to fail with the row's own time as the timestamp: Kafka deleted imported events before they were consumed.
    #[test]
    fn the_timestamp_of_an_old_event_is_its_time_of_publication() {
        let (now, long_ago) = (Utc::now(), Utc::now() - TimeDelta::days(400));
        let record = record(&OutboxRow { created_at: long_ago, ..row(1) }, now);
        assert_eq!(record.timestamp, now);
        let time = record.headers.attribute("ce_time").expect("ce_time");
        assert!(time.starts_with(&long_ago.format("%Y-%m-%dT%H:%M").to_string()));
    }

    #[test]
    fn headers_of_the_row_replace_the_cloudevents_headers() {
        let mut row = row(1);
        assert_eq!(headers(&row).attribute("traceparent"), Some("00-1-2-01"));
        row.headers = Some(serde_json::json!([["a", "eA=="]]));
        assert_eq!(headers(&row), [("a", "x")].into());
    }
}
