//! The environment of a role. It is built once, at start, and passed in.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
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

/// Whether the role can do its work. Starts as not ready. Cheap to clone; all clones share one state.
#[derive(Clone, Default, Debug)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// Sets whether the role can do its work now.
    pub fn set_ready(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// Returns whether the role can do its work.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
