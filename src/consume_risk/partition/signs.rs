//! What a partition shows of itself: its lag, whether it stands still, and what an operator can do about that.

use super::PartitionConsumer;
use crate::{broker::BrokerError, repository::positions::PartitionName};

impl PartitionConsumer {
    fn labels(&self) -> [(&'static str, String); 3] {
        [
            ("group", self.name.group.clone()),
            ("topic", self.name.topic.clone()),
            ("partition", self.name.partition.to_string()),
        ]
    }

    pub(super) fn show_lag(&self, records: i64) {
        let records = u32::try_from(records.max(0)).unwrap_or(u32::MAX);
        metrics::gauge!("ledger_consumer_lag_records", &self.labels()).set(records);
    }

    pub(super) fn halted(&self, is_halted: bool) {
        let alarm = if is_halted { 1.0 } else { 0.0 };
        metrics::gauge!("ledger_consumer_halted", &self.labels()).set(alarm);
    }
}

/// A turn that failed and will be made again. None: the trouble is not the broker's.
pub(super) fn count_error(error: Option<&BrokerError>, name: &PartitionName) {
    let reason = match error {
        None => "database",
        Some(BrokerError::Unavailable { .. }) => "unavailable",
        Some(BrokerError::OffsetOutOfRange { .. }) => "offset_out_of_range",
        Some(BrokerError::NoSuchTopic(_) | BrokerError::TooFewPartitions { .. }) => "no_such_topic",
        Some(_) => "refused",
    };
    let (group, topic) = (name.group.clone(), name.topic.clone());
    metrics::counter!("ledger_consumer_errors_total", "group" => group, "topic" => topic, "reason" => reason)
        .increment(1);
}

/// Keeps the broker's error and says what to do about one that halts the partition.
pub(super) fn halt_text(error: BrokerError, name: &PartitionName) -> anyhow::Error {
    let halts = matches!(error, BrokerError::OffsetOutOfRange { .. });
    let error = anyhow::Error::new(error);
    if halts {
        let PartitionName { group, topic, partition } = name;
        error.context(format!(
            "the partition is halted, nothing is skipped: records were lost to retention or the topic was made anew; \
             `ledger consumers reset --group {group} --topic {topic} --partition {partition} --to earliest` goes on \
             from what is there"
        ))
    } else {
        error
    }
}
