//! The environment of a role. It is built once, at start, and passed in.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use metrics_exporter_prometheus::PrometheusHandle;

use super::{DatabaseClock, Outages, Stop};
use crate::config::Config;

/// Everything that a role gets from the process. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The whole configuration.
    pub config: Arc<Config>,
    /// The request to stop.
    pub stop: Stop,
    /// The state that `/readyz` reports.
    pub health: Health,
    /// The database's clock.
    pub clock: DatabaseClock,
    /// The outages that the process has logged.
    pub outages: Outages,
    /// The recorder that `/metrics` prints.
    pub metrics: PrometheusHandle,
    /// Whether spans are exported. If not, hot paths create none.
    pub exports_traces: bool,
    /// The unique name of this process: host, process id and a random part. It is the owner of the leases that the
    /// process holds.
    pub instance: Arc<str>,
}

/// Whether the role can do its work: it has started, and none of its activities fails. Starts as not ready. Cheap to
/// clone; all clones share one state.
#[derive(Clone, Default, Debug)]
pub struct Health(Arc<Mutex<HealthState>>);

#[derive(Default, Debug)]
struct HealthState {
    is_ready: bool,
    failing: BTreeSet<String>,
}

impl Health {
    /// Sets whether the role has started and is not stopping.
    pub fn set_ready(&self, ready: bool) {
        self.state().is_ready = ready;
    }

    /// Returns whether the role can do its work.
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        state.is_ready && state.failing.is_empty()
    }

    /// Returns an activity that fails now, for example `publishing`.
    pub fn failing(&self) -> Option<String> {
        self.state().failing.first().cloned()
    }

    /// Creates the part of an activity, which does not fail yet. The name must be unique in the role.
    pub fn part(&self, activity: impl Into<String>) -> HealthPart {
        HealthPart { health: self.clone(), activity: activity.into() }
    }

    fn state(&self) -> MutexGuard<'_, HealthState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of one activity in the health of its role. A role is not ready while a part fails. A part that is dropped no
/// longer fails.
#[derive(Debug)]
pub struct HealthPart {
    health: Health,
    activity: String,
}

impl HealthPart {
    /// Notes the outcome of the last attempt.
    pub fn set_failing(&self, is_failing: bool) {
        let mut state = self.health.state();
        match is_failing {
            true => state.failing.insert(self.activity.clone()),
            false => state.failing.remove(&self.activity),
        };
    }
}

impl Drop for HealthPart {
    fn drop(&mut self) {
        self.set_failing(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_ready_while_none_of_its_parts_fails() {
        let health = Health::default();
        let (leases, publishing) = (health.part("renewing the leases"), health.part("publishing"));
        assert!(!health.is_ready());
        health.set_ready(true);
        assert!(health.is_ready() && health.failing().is_none());
        leases.set_failing(true);
        publishing.set_failing(true);
        leases.set_failing(false);
        assert!(!health.is_ready());
        assert_eq!(health.failing().as_deref(), Some("publishing"));
        drop(publishing);
        assert!(health.is_ready());
    }
}
