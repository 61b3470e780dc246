//! Failures that halt a partition until an operator decides.

use crate::{broker::BrokerError, repository::positions::PartitionName};

/// Returns whether a retry cannot help, because the broker does not hold the offset at the position.
pub(super) fn is_halting(error: &BrokerError) -> bool {
    matches!(error, BrokerError::OffsetOutOfRange { .. })
}

/// Adds the remedy to a halting error. Returns other errors unchanged.
pub(super) fn explain(error: BrokerError, name: &PartitionName) -> anyhow::Error {
    let is_halting = is_halting(&error);
    let error = anyhow::Error::new(error);
    if !is_halting {
        return error;
    }
    let PartitionName { group, topic, partition } = name;
    error.context(format!(
        "the partition is halted, nothing is skipped: records were lost to retention, or the topic was recreated; \
         `ledger consumers reset --group {group} --topic {topic} --partition {partition} --to earliest` continues \
         with the records that are left"
    ))
}
