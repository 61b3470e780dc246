//! What every role stands on: logs and traces, a clean stop, back-off, the admin listener, leases.

mod admin;
mod backoff;
mod context;
mod shutdown;
mod telemetry;

pub use admin::{AdminListener, start_admin};
pub use backoff::Backoff;
pub use context::{Context, Health};
pub use shutdown::{Stop, stop_on_signals};
pub use telemetry::{Telemetry, start_telemetry};
