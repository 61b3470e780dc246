//! What a role is started with. Built once, passed in; there are no globals.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use metrics_exporter_prometheus::PrometheusHandle;

use super::Stop;
use crate::config::Config;

/// Everything a role needs from its surroundings. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The whole configuration.
    pub config: Arc<Config>,
    /// Asks the role to stop.
    pub stop: Stop,
    /// What `/readyz` answers.
    pub health: Health,
    /// What `/metrics` prints.
    pub metrics: PrometheusHandle,
    /// Whether spans are exported. Where they are not, hot paths make none.
    pub exports_traces: bool,
    /// Name of this process among others of its role: host, process id and a random part.
    pub instance: Arc<str>,
}

/// Whether the role can do its work. Starts as not ready. Cheap to clone; all clones are one.
#[derive(Clone, Default, Debug)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// Says whether the role can do its work now.
    pub fn set_ready(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// What was said last.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
