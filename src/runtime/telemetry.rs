//! Logs on stderr, metrics for the admin listener, and traces by OTLP where `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
//!
//! Logging and exporting are independent: `log.filter` does not affect exported spans. Without an exporter, only the
//! log filter can enable a span, so hot paths that first check whether a span is enabled pay nothing.

use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracer, SdkTracerProvider},
};
use tracing::Dispatch;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use super::{
    metric_help::describe_all,
    otel_variables::OtelVariables,
    version::{COMMIT, VERSION},
};
use crate::config::{Log, LogFormat};

/// Seconds: from a response that needs no query to a request that times out.
const DURATION_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// The target whose spans are exported. Spans of the exporter's own connection have another target.
const EXPORTED_TARGET: &str = "ledger";
/// The part of the time to end that is left to the process after the last export.
const EXIT_TIME: Duration = Duration::from_secs(1);
/// Items in one group or batch.
const SIZE_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0];

/// The environment of the process.
type Process = OtelVariables<fn(&str) -> Option<String>>;

/// The running logs, metrics and traces.
pub struct Telemetry {
    /// The recorder that `/metrics` prints.
    pub metrics: PrometheusHandle,
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Returns whether spans are exported.
    pub fn exports_traces(&self) -> bool {
        self.traces.is_some()
    }

    /// Exports the remaining spans, if the collector takes them within `time_left` minus a reserve for the end of the
    /// process. Blocks, so call it last.
    pub fn end(self, time_left: Duration) {
        let limit = time_left.saturating_sub(EXIT_TIME);
        if let Some(provider) = self.traces
            && let Err(error) = provider.shutdown_with_timeout(limit)
        {
            tracing::warn!(%error, "some traces could not be exported");
        }
    }
}

/// Starts logs, metrics and traces. `role` is a label of `ledger_build_info`, and names the service in traces
/// (`ledger-serve`) unless `OTEL_SERVICE_NAME` does. `instance` is the name of the process in traces.
pub fn start_telemetry(log: &Log, role: &str, instance: &str) -> anyhow::Result<Telemetry> {
    let filter = log_filter(&log.filter)?;
    let variables: Process = OtelVariables(|name| std::env::var(name).ok());
    let exports = variables.export_traces()?;
    let traces = if exports { Some(tracer_provider(role, instance, &variables)?) } else { None };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => {
            let coloured = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none();
            lines.with_ansi(coloured).with_target(false).boxed()
        }
    };
    dispatch(lines, filter, traces.as_ref().map(|provider| provider.tracer("ledger"))).init();
    if let Some((name, protocol)) = variables.other_protocol()
        && traces.is_some()
    {
        tracing::warn!("{name} is {protocol}, but traces are exported by gRPC");
    }
    Ok(Telemetry { metrics: install_metrics(role)?, traces })
}

/// Directives that make a target quieter, unless the filter names it. They hide the start and the stop of each thread of
/// the HTTP server, and requests that are not valid HTTP: any client could fill the log with such requests, and
/// `http_server` counts them. Spans of events are for the exporter alone, so that they cost nothing without one.
const QUIET: [(&str, &str); 4] = [
    ("ledger::events", "ledger::events=off"),
    ("actix_server", "actix_server=warn"),
    ("actix_http", "actix_http::h1::dispatcher=off"),
    ("actix_http", "actix_http::h1::decoder=off"),
];

/// Parses the filter.
fn log_filter(text: &str) -> anyhow::Result<EnvFilter> {
    let mut filter = EnvFilter::try_new(text).with_context(|| format!("log.filter {text:?} is not valid"))?;
    // Only a level without a target, such as `info`, applies to the libraries. Without one, a directive would make them louder.
    let levels = text.split(',').filter_map(|directive| directive.trim().parse::<LevelFilter>().ok());
    let is_verbose = levels.max().is_some_and(|level| level > LevelFilter::WARN);
    let is_added = |(library, directive): &&(&str, &str)| {
        !text.contains(library) && (is_verbose || directive.ends_with("off"))
    };
    for (_, directive) in QUIET.iter().filter(is_added) {
        filter = filter.add_directive(directive.parse().context("log filter of the HTTP library")?);
    }
    Ok(filter)
}

/// Combines the log lines and the exporter. With an exporter, each has a filter of its own. Without one, a single filter
/// for everything rejects unwanted spans earlier, which is cheaper.
fn dispatch(
    lines: Box<dyn Layer<Registry> + Send + Sync>,
    filter: EnvFilter,
    tracer: Option<SdkTracer>,
) -> Dispatch {
    let registry = tracing_subscriber::registry();
    let Some(tracer) = tracer else { return registry.with(lines).with(filter).into() };
    let exported = Targets::new().with_target(EXPORTED_TARGET, LevelFilter::INFO);
    let otlp = tracing_opentelemetry::layer().with_tracer(tracer).with_filter(exported);
    registry.with(lines.with_filter(filter)).with(otlp).into()
}

fn install_metrics(role: &str) -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), DURATION_BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_size".into()), SIZE_BUCKETS))
        .context("metric buckets")?
        .install_recorder()
        .context("cannot install the metrics recorder")?;
    describe_all();
    let role = role.to_owned();
    metrics::gauge!("ledger_build_info", "version" => VERSION, "commit" => COMMIT, "role" => role).set(1.0);
    Ok(handle)
}

/// Creates the exporter. Its variables must have been checked.
fn tracer_provider(role: &str, instance: &str, variables: &Process) -> anyhow::Result<SdkTracerProvider> {
    let exporter =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().build().context("OTLP exporter")?;
    let mut resource = Resource::builder();
    let given = variables.get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_given = |name: &str| {
        given.split(',').any(|pair| pair.split_once('=').is_some_and(|(key, _)| key.trim() == name))
    };
    if variables.get("OTEL_SERVICE_NAME").is_none() && !is_given("service.name") {
        resource = resource.with_service_name(format!("ledger-{role}"));
    }
    // The variable takes precedence over these attributes.
    for (name, value) in [("service.version", VERSION), ("service.instance.id", instance)] {
        if !is_given(name) {
            resource = resource.with_attribute(KeyValue::new(name, value.to_owned()));
        }
    }
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry_sdk::{
        error::OTelSdkResult,
        trace::{SpanData, SpanExporter},
    };
    use tracing::{Level, dispatcher::with_default, enabled, info_span};

    use super::*;

    /// Clients choose whether a trace is sampled, so spans of events must cost nothing without an exporter.
    #[test]
    fn without_an_exporter_spans_of_events_are_off() {
        for filter in ["info", "trace", "ledger=trace"] {
            with_default(&logging(filter, None), || {
                assert!(info_span!(target: "ledger::events", "a").is_disabled(), "{filter}");
            });
        }
    }

    #[derive(Debug, Clone, Default)]
    struct Exported(Arc<Mutex<Vec<String>>>);

    impl SpanExporter for Exported {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().expect("no panic").extend(batch.into_iter().map(|span| span.name.into_owned()));
            Ok(())
        }
    }

    fn logging(filter: &str, tracer: Option<SdkTracer>) -> Dispatch {
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::sink).boxed();
        dispatch(lines, log_filter(filter).expect("valid"), tracer)
    }

    #[test]
    fn the_log_filter_does_not_affect_exported_spans() {
        let exported = Exported::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exported.clone()).build();
        with_default(&logging("warn,h2=trace", Some(provider.tracer("test"))), || {
            drop(info_span!("ours"));
            drop(info_span!(target: "h2::client", "theirs"));
            drop(tracing::debug_span!("too fine"));
        });
        assert_eq!(*exported.0.lock().expect("no panic"), ["ours"]);
    }

    /// If only the default filter named the library, each filter of a user would make it loud. A filter that
    /// names other targets only, such as `ledger=debug`, must not switch the library's warnings on.
    #[test]
    fn threads_of_the_http_server_are_quiet_unless_the_filter_asks_for_them() {
        let is_on = |filter: &str| {
            with_default(&logging(filter, None), || enabled!(target: "actix_server::builder", Level::INFO))
        };
        let warns = |filter: &str| {
            with_default(&logging(filter, None), || enabled!(target: "actix_server::builder", Level::WARN))
        };
        assert!(warns("info,ledger=debug") && !warns("ledger=debug") && !warns("error"));
        assert!(!is_on("info") && !is_on("info,ledger::access=debug"));
        assert!(is_on("info,actix_server=info"));
    }

    #[test]
    fn lines_about_invalid_requests_are_off_unless_the_filter_asks_for_them() {
        let is_on = |filter: &str| {
            with_default(
                &logging(filter, None),
                || enabled!(target: "actix_http::h1::dispatcher", Level::ERROR),
            )
        };
        assert!(!is_on("info") && !is_on("ledger=debug,trace"));
        assert!(is_on("info,actix_http=error"));
    }

    #[test]
    fn without_an_exporter_the_log_filter_enables_spans() {
        with_default(&logging("warn", None), || {
            assert!(info_span!("a").is_disabled());
            assert!(!enabled!(target: "ledger::access", Level::DEBUG));
        });
        with_default(&logging("warn,ledger::access=debug", None), || {
            assert!(info_span!("b").is_disabled());
            assert!(enabled!(target: "ledger::access", Level::DEBUG));
        });
    }
}
