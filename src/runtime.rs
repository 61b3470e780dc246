//! The services that every role uses: boot, the comparison with the recorded broker, logs and traces, clean shutdown,
//! back-off, the HTTP server and the admin listener, leases and fail points.

mod admin;
mod backoff;
mod boot;
mod context;
mod database_clock;
mod exposition;
pub mod fail_point;
pub mod http_server;
mod leases;
mod measurement;
mod metric_help;
mod open_files;
mod otel_variables;
mod outage_log;
mod recorded_broker;
mod shutdown;
mod table;
mod telemetry;
mod terminal;
mod time_span;
mod trace_context;
mod version;
mod wall_clock;

pub use admin::{ADMIN_FILES_MAX, AdminListener, start_admin};
pub use backoff::Backoff;
pub use boot::{Boot, StartDetails};
pub use context::{Context, Health, HealthPart};
pub use database_clock::DatabaseClock;
pub use leases::{Lease, LeaseGroup, fair_share};
pub use measurement::{Measurement, as_value, start_at_zero};
pub use open_files::{open_files_max, raise_open_files_limit};
pub use outage_log::{OutageLog, Outages};
pub use recorded_broker::{BrokerMismatch, BrokerRecord, BrokerWatch};
pub use shutdown::{Stop, StopSignal, stop_on_signals};
pub use table::{Table, table};
pub use telemetry::{Telemetry, start_telemetry};
pub use terminal::{EXIT_MISUSED, OutputFormat, print_json, print_text, progress_bar};
pub use time_span::{parse_interval, parse_time_span};
pub use trace_context::{EventSpans, is_sampled};
pub use version::{COMMIT, VERSION, long_version};
pub use wall_clock::{arm_wall_clock, wall_clock};
