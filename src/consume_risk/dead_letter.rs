//! Making a dead letter: the record as it came, and where and why in headers of our own.

use uuid::Uuid;

use super::decode::{RecordFault, event_id};
use crate::{
    broker::FetchedRecord,
    repository::{dead_letters::NewDeadLetter, positions::PartitionName},
};

/// Longest message in a header; the row keeps the same.
const MESSAGE_LENGTH_MAX: usize = 2_000;

/// The letter for a record that was given up after `attempts` tries.
pub(super) fn dead_letter(
    source: &PartitionName,
    record: &FetchedRecord,
    fault: &RecordFault,
    attempts: i32,
) -> NewDeadLetter {
    // PostgreSQL's text cannot hold U+0000, and what a record says may appear in the message.
    let error: String =
        fault.error.chars().filter(|character| *character != '\0').take(MESSAGE_LENGTH_MAX).collect();
    let facts = [
        ("group", source.group.clone()),
        ("topic", source.topic.clone()),
        ("partition", source.partition.to_string()),
        ("offset", record.offset.to_string()),
        ("stage", fault.stage.to_owned()),
        ("reason", fault.reason.to_owned()),
        ("message", error.clone()),
        ("attempts", attempts.to_string()),
    ];
    let named = facts.into_iter().map(|(name, fact)| (format!("__ledger.error.{name}"), fact));
    NewDeadLetter {
        id: Uuid::now_v7(),
        source: source.clone(),
        offset: record.offset,
        key: record.key.as_deref().map(<[u8]>::to_vec),
        value: record.value.as_deref().map(<[u8]>::to_vec),
        headers: record.headers.clone(),
        stage: fault.stage.to_owned(),
        reason: fault.reason.to_owned(),
        error,
        attempts,
        event_id: event_id(record),
        outgoing_headers: record.headers.followed_by(named),
    }
}
