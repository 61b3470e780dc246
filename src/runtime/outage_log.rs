//! Logs an outage once when it begins and once when it ends, however many attempts fail in between: an outage that
//! lasts all night takes two lines. A failure with another cause is logged too, up to a limit, because a broker that
//! was silent may come back and refuse the password.

use std::{fmt::Display, time::Instant};

/// How many different causes of one outage are logged.
const CAUSES_MAX: usize = 4;

/// The outages of one activity that is retried until it succeeds.
#[derive(Debug)]
pub struct OutageLog {
    activity: String,
    began_at: Option<Instant>,
    /// The causes that were logged since the outage began.
    causes: Vec<String>,
}

impl OutageLog {
    /// Creates a log without an outage. `activity` is the subject of the log lines: `publishing to transactions.v1/3`.
    pub fn new(activity: impl Into<String>) -> Self {
        Self { activity: activity.into(), began_at: None, causes: Vec::new() }
    }

    /// Notes an attempt that failed and will be retried.
    pub fn failed(&mut self, error: &dyn Display) {
        let cause = error.to_string();
        if self.began_at.is_none() {
            self.began_at = Some(Instant::now());
            tracing::warn!("{} fails, retrying until it works: {cause}", self.activity);
        } else if self.is_new(&cause) {
            tracing::warn!("{} still fails, now with another cause: {cause}", self.activity);
        } else {
            tracing::debug!("{} still fails: {cause}", self.activity);
            return;
        }
        self.causes.push(cause);
    }

    fn is_new(&self, cause: &String) -> bool {
        self.causes.len() < CAUSES_MAX && !self.causes.contains(cause)
    }

    /// Notes an attempt that succeeded.
    pub fn succeeded(&mut self) {
        self.causes.clear();
        if let Some(began_at) = self.began_at.take() {
            tracing::info!("{} works again after {:.1} s", self.activity, began_at.elapsed().as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_logged_once_up_to_the_limit() {
        let mut outage = OutageLog::new("trying");
        for cause in ["silent", "silent", "refused", "silent", "refused"] {
            outage.failed(&cause);
        }
        assert_eq!(outage.causes, ["silent", "refused"]);
        for number in 0..100 {
            outage.failed(&number);
        }
        assert_eq!(outage.causes.len(), CAUSES_MAX);
        outage.succeeded();
        assert!(outage.is_new(&"silent".to_owned()) && outage.began_at.is_none());
    }
}
