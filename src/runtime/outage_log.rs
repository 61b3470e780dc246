//! Logs an outage once when it begins and once when it ends, however many attempts fail in between: an outage that
//! lasts all night takes two lines.
//!
//! One outage makes many activities of a role fail: each partition, each writer, the leases. The first activity that
//! fails with a cause logs it; the others log the same cause at the level `debug` until that activity works again. A
//! failure with another cause is logged too, up to a limit, because a broker that was silent may come back and refuse
//! the password.

use std::{
    collections::HashSet,
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// How many different causes an activity logs in one outage.
const CAUSES_MAX: usize = 4;

/// The causes of outages that were logged in this process and are not over. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Outages(Arc<Mutex<HashSet<String>>>);

impl Outages {
    /// Creates the log of one activity that is retried until it succeeds. `activity` is the subject of the log lines:
    /// `publishing the outbox`.
    pub fn log_of(&self, activity: impl Into<String>) -> OutageLog {
        OutageLog {
            activity: activity.into(),
            began_at: None,
            causes: Vec::new(),
            logged_by_any: self.clone(),
        }
    }

    fn causes(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outages of one activity.
#[derive(Debug)]
pub struct OutageLog {
    activity: String,
    began_at: Option<Instant>,
    /// The causes that this activity logged since the outage began.
    causes: Vec<String>,
    logged_by_any: Outages,
}

impl OutageLog {
    /// Notes an attempt that failed and will be retried.
    pub fn failed(&mut self, error: &dyn Display) {
        // The details of PostgreSQL are lines of their own.
        let text = error.to_string().replace('\n', "; ");
        self.began_at.get_or_insert_with(Instant::now);
        if !self.is_new(&text) {
            tracing::debug!("{} fails: {text}", self.activity);
        } else if self.causes.is_empty() {
            tracing::warn!("{} fails, retrying until it works: {text}", self.activity);
            self.causes.push(cause(&text));
        } else {
            tracing::warn!("{} still fails, now with another cause: {text}", self.activity);
            self.causes.push(cause(&text));
        }
    }

    /// Returns whether no activity has logged the cause, and notes that this one does.
    fn is_new(&self, text: &str) -> bool {
        self.causes.len() < CAUSES_MAX && self.logged_by_any.causes().insert(cause(text))
    }

    /// Notes an attempt that succeeded.
    pub fn succeeded(&mut self) {
        let Some(began_at) = self.began_at.take() else { return };
        let seconds = began_at.elapsed().as_secs_f64();
        if self.causes.is_empty() {
            tracing::debug!("{} works again after {seconds:.1} s", self.activity);
        } else {
            tracing::info!("{} works again after {seconds:.1} s", self.activity);
            self.forget_causes();
        }
    }

    fn forget_causes(&mut self) {
        let mut logged_by_any = self.logged_by_any.causes();
        for cause in self.causes.drain(..) {
            logged_by_any.remove(&cause);
        }
    }
}

impl Drop for OutageLog {
    /// An activity that ends in an outage, such as a partition that another member takes, does not keep others silent.
    fn drop(&mut self) {
        self.forget_causes();
    }
}

/// Returns the end of the text, without numbers. Each activity puts its own words before the same cause, and ports,
/// partitions and times differ.
fn cause(text: &str) -> String {
    let begins = text.rmatch_indices(": ").nth(1).map_or(0, |(at, separator)| at + separator.len());
    let end = text.get(begins..).unwrap_or(text);
    end.chars().filter(|character| !character.is_ascii_digit() && *character != '.').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_logged_once_up_to_the_limit() {
        let mut outage = Outages::default().log_of("trying");
        for cause in ["silent", "silent", "refused", "silent", "refused"] {
            outage.failed(&cause);
        }
        assert_eq!(outage.causes, ["silent", "refused"]);
        for number in 0..100 {
            outage.failed(&"x".repeat(number));
        }
        assert_eq!(outage.causes.len(), CAUSES_MAX);
        outage.succeeded();
        assert!(outage.is_new("silent") && outage.began_at.is_none());
    }

    /// With a log for each activity alone, a role with twelve partitions logs an outage twelve times.
    #[test]
    fn one_outage_of_many_activities_is_logged_by_the_first_of_them() {
        let outages = Outages::default();
        let mut partitions: Vec<OutageLog> = (0..12).map(|_| outages.log_of("consuming")).collect();
        for (number, partition) in partitions.iter_mut().enumerate() {
            partition.failed(&format!("partition {number}: no answer within 4.{number} s"));
        }
        let logged =
            |partitions: &[OutageLog]| partitions.iter().filter(|log| !log.causes.is_empty()).count();
        assert_eq!(logged(&partitions), 1);
        partitions[1].failed(&"publishing: the broker is away: partition 3: no answer within 10 s");
        assert_eq!(logged(&partitions), 1, "the same cause in other words");
        partitions[5].failed(&"the password is refused");
        assert_eq!(logged(&partitions), 2, "another cause is logged");
        drop(partitions.remove(0));
        partitions[0].failed(&"partition 1: no answer within 5 s");
        assert_eq!(
            logged(&partitions),
            2,
            "a cause is logged again after the activity that logged it has ended"
        );
    }
}
