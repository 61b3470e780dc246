//! The metrics of one partition: its lag, whether it is halted, its errors.

use crate::{broker::BrokerError, repository::positions::PartitionName};

pub(super) struct PartitionMetrics {
    labels: [(&'static str, String); 3],
}

impl PartitionMetrics {
    /// Creates the metrics without reporting a value.
    pub fn new(name: &PartitionName) -> Self {
        let labels = [
            ("group", name.group.clone()),
            ("topic", name.topic.clone()),
            ("partition", name.partition.to_string()),
        ];
        Self { labels }
    }

    /// Shows how many records lie between the position and the end of the partition.
    pub fn set_lag(&self, records: i64) {
        let records = u32::try_from(records.max(0)).unwrap_or(u32::MAX);
        metrics::gauge!("ledger_consumer_lag_records", &self.labels).set(records);
    }

    /// Shows whether the partition waits for an operator.
    pub fn set_halted(&self, is_halted: bool) {
        let value = if is_halted { 1.0 } else { 0.0 };
        metrics::gauge!("ledger_consumer_halted", &self.labels).set(value);
    }

    /// Counts a step that failed and is retried. None: the failure is not the broker's.
    pub fn count_error(&self, error: Option<&BrokerError>) {
        let reason = match error {
            None => "database",
            Some(BrokerError::Unavailable { .. }) => "unavailable",
            Some(BrokerError::NoSuchTopic(_) | BrokerError::TooFewPartitions { .. }) => "no_such_topic",
            Some(_) => "refused",
        };
        let [group, topic, _] = self.labels.clone();
        metrics::counter!("ledger_consumer_errors_total", &[group, topic, ("reason", reason.to_owned())])
            .increment(1);
    }
}
