//! Builds a dead letter: the record unchanged, with added headers that name its origin and the reason of the failure.

use uuid::Uuid;

use super::decode::{RecordFault, event_id};
use crate::{
    broker::FetchedRecord,
    repository::{dead_letters::NewDeadLetter, positions::PartitionName},
};

/// The longest error text in the header and in the row.
const MESSAGE_LENGTH_MAX: usize = 2_000;

/// Returns the dead letter of a record that is given up after `attempts` attempts.
pub(super) fn dead_letter(
    source: &PartitionName,
    record: &FetchedRecord,
    fault: &RecordFault,
    attempts: i32,
) -> NewDeadLetter {
    // PostgreSQL's text cannot hold U+0000, and the error text may quote the record.
    let error: String =
        fault.error.chars().filter(|character| *character != '\0').take(MESSAGE_LENGTH_MAX).collect();
    let id = Uuid::now_v7();
    let facts = [
        ("id", id.to_string()),
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
        id,
        offset: record.offset,
        leader_epoch: record.leader_epoch,
        key: record.key.as_deref().map(<[u8]>::to_vec),
        value: record.value.as_deref().map(<[u8]>::to_vec),
        headers: record.headers.clone(),
        stage: fault.stage,
        reason: fault.reason,
        error,
        attempts,
        event_id: event_id(record),
        outgoing_headers: record.headers.followed_by(named),
    }
}
