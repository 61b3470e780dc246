//! The time limit of one call to the cluster.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::broker::BrokerError;

/// The end of a call. A wait that a quota imposes moves it.
pub(super) struct Deadline {
    limit: Duration,
    ends: Instant,
}

impl Deadline {
    pub(super) fn after(limit: Duration) -> Self {
        Self { limit, ends: Instant::now() + limit }
    }

    pub(super) fn extend(&mut self, time: Duration) {
        self.limit += time;
        self.ends += time;
    }

    /// Returns whether the call may still go on after a wait.
    pub(super) fn allows(&self, wait: Duration) -> bool {
        Instant::now() + wait < self.ends
    }

    /// Waits for the outcome of `step`, or fails with `Unavailable` when the time is over.
    pub(super) async fn limit<T>(
        &self,
        step: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        timeout_at(self.ends, step).await.unwrap_or_else(|_| {
            Err(BrokerError::Unavailable { detail: format!("no answer from Kafka within {:?}", self.limit) })
        })
    }
}
