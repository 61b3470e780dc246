//! Logs on stderr, metrics for the admin listener, and traces by OTLP where `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Log, LogFormat};

/// Seconds: from a memory hit to a request that timed out.
const DURATION_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Items in one group or batch.
const SIZE_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0];

/// Keeps logs, metrics and traces going; flushes traces when ended.
pub struct Telemetry {
    /// What `/metrics` prints.
    pub metrics: PrometheusHandle,
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Whether spans are exported.
    pub fn exports_traces(&self) -> bool {
        self.traces.is_some()
    }

    /// Sends what is still held back. Call it last; it blocks for a bounded time.
    pub fn end(self) {
        if let Some(provider) = self.traces
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "some traces could not be sent");
        }
    }
}

/// Starts all three. `role` names the service in traces (`ledger-serve`) unless `OTEL_SERVICE_NAME` does.
pub fn start_telemetry(log: &Log, role: &str) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_new(&log.filter)
        .with_context(|| format!("log.filter {:?} is not valid", log.filter))?;
    let traces = tracer_provider(role)?;
    let otlp =
        traces.as_ref().map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("ledger")));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => {
            let coloured = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none();
            lines.with_ansi(coloured).with_target(false).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(lines).with(otlp).init();
    Ok(Telemetry { metrics: install_metrics()?, traces })
}

fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), DURATION_BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_size".into()), SIZE_BUCKETS))
        .context("metric buckets")?
        .install_recorder()
        .context("cannot install the metrics recorder")
}

fn tracer_provider(role: &str) -> anyhow::Result<Option<SdkTracerProvider>> {
    let wanted = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
    if !wanted.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
        return Ok(None);
    }
    let exporter =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().build().context("OTLP exporter")?;
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(format!("ledger-{role}"));
    }
    Ok(Some(
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build(),
    ))
}
