//! A halted partition waits for an operator: its log does not continue where the group stopped reading, and any automatic
//! choice would skip records or trust the wrong ones.
//!
//! The halt is stored with the position. So it outlasts this process, and it does not end by itself when the log becomes
//! longer than the position. Only `ledger consumers reset` ends it.

use crate::{broker::BrokerError, repository::positions::PartitionName};

/// The partition is halted.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name} is halted, nothing is skipped: {reason}; when the cause is clear, `ledger consumers reset --group {group} \
     --topic {topic} --partition {partition} --to earliest` continues with the records that are left, and `ledger republish \
     --missing` publishes lost events again",
    group = .name.group, topic = .name.topic, partition = .name.partition
)]
pub(super) struct Halted {
    name: PartitionName,
    reason: String,
}

impl Halted {
    pub fn new(name: &PartitionName, reason: String) -> Self {
        Self { name: name.clone(), reason }
    }
}

/// Returns the reason for a halt, if a retry cannot help against this error.
pub(super) fn reason(error: &anyhow::Error) -> Option<String> {
    let error = error.downcast_ref::<BrokerError>().filter(|error| error.is_position_lost())?;
    Some(match error {
        BrokerError::OffsetOutOfRange { .. } => {
            format!("{error}, because records were removed by retention or the end of the log was lost")
        }
        _ => error.to_string(),
    })
}
