//! The metrics of one partition: its lag, whether it is halted, its errors. The lag and the halt are reported only while
//! they are known, and only by the owner of the partition.

use chrono::{DateTime, Utc};

use crate::{
    broker::BrokerError,
    repository::positions::PartitionName,
    runtime::{DatabaseClock, Measurement},
};

const ERRORS: &str = "ledger_consumer_errors_total";
const REASONS: [&str; 4] = ["database", "unavailable", "no_such_topic", "refused"];

pub(super) struct PartitionMetrics {
    clock: DatabaseClock,
    labels: [(&'static str, String); 3],
    lag_records: Measurement,
    lag_seconds: Measurement,
    halted: Measurement,
    /// Since when records wait: the time of publication of the first unhandled record, if it is known, or else the first
    /// moment at which a record waited.
    behind_since: Option<DateTime<Utc>>,
}

impl PartitionMetrics {
    /// Creates the metrics without values. The counters of errors start at 0.
    pub fn new(name: &PartitionName, clock: DatabaseClock) -> Self {
        let labels = [
            ("group", name.group.clone()),
            ("topic", name.topic.clone()),
            ("partition", name.partition.to_string()),
        ];
        let metrics = Self {
            clock,
            lag_records: Measurement::new(metrics::gauge!("ledger_consumer_lag_records", &labels)),
            lag_seconds: Measurement::new(metrics::gauge!("ledger_consumer_lag_seconds", &labels)),
            halted: Measurement::new(metrics::gauge!("ledger_consumer_halted", &labels)),
            behind_since: None,
            labels,
        };
        REASONS.into_iter().for_each(|reason| metrics.add_errors(reason, 0));
        metrics
    }

    /// Notes when the first unhandled record was published.
    pub fn set_oldest(&mut self, published_at: Option<DateTime<Utc>>) {
        self.behind_since = published_at.or(self.behind_since);
    }

    /// Shows how many records lie between the position and the end of the partition, and how old the first one is.
    pub fn set_lag(&mut self, records: i64) {
        let now = self.clock.now();
        if records <= 0 {
            self.behind_since = None;
        }
        let age = match records {
            ..=0 => 0.0,
            _ => (now - *self.behind_since.get_or_insert(now)).as_seconds_f64().max(0.0),
        };
        self.lag_records.set(f64::from(u32::try_from(records.max(0)).unwrap_or(u32::MAX)));
        self.lag_seconds.set(age);
    }

    /// Shows no lag, because it cannot be measured now.
    pub fn forget_lag(&self) {
        self.lag_records.forget();
        self.lag_seconds.forget();
    }

    /// Shows nothing, because another process may own the partition now.
    pub fn forget(&self) {
        self.forget_lag();
        self.halted.forget();
    }

    /// Shows whether the partition waits for an operator.
    pub fn set_halted(&self, is_halted: bool) {
        self.halted.set(if is_halted { 1.0 } else { 0.0 });
    }

    /// Counts a step that failed and is retried. None: the failure is not the broker's.
    pub fn count_error(&self, error: Option<&BrokerError>) {
        let [database, unavailable, no_such_topic, refused] = REASONS;
        let reason = match error {
            None => database,
            Some(BrokerError::Unavailable { .. }) => unavailable,
            Some(BrokerError::NoSuchTopic(_) | BrokerError::TooFewPartitions { .. }) => no_such_topic,
            Some(_) => refused,
        };
        self.add_errors(reason, 1);
    }

    fn add_errors(&self, reason: &'static str, count: u64) {
        let [group, topic, _] = self.labels.clone();
        metrics::counter!(ERRORS, &[group, topic, ("reason", reason.to_owned())]).increment(count);
    }
}
