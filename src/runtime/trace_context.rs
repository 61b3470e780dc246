//! Spans of roles that handle events: they continue the trace of the request that caused the event.

use std::collections::HashMap;

use opentelemetry::{Context, propagation::TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Returns whether the trace of a `traceparent` is sampled.
pub fn is_sampled(traceparent: &str) -> bool {
    traceparent.ends_with("01")
}

/// Spans of events that are handled together. A span that is dropped before [`EventSpans::succeed`] ends as an error. The
/// spans need a field `otel.status_code`.
#[derive(Debug, Default)]
pub struct EventSpans(Vec<Span>);

impl EventSpans {
    /// Adds a span and makes it part of the trace of a `traceparent`.
    pub fn add(&mut self, span: Span, traceparent: &str) {
        if span.is_disabled() {
            return;
        }
        let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
        // This fails only if the span is not exported.
        let _ = span.set_parent(parent);
        self.0.push(span);
    }

    /// Ends the spans of the last `count` events, which were not handled, without a status.
    pub fn leave_out_last(&mut self, count: usize) {
        self.0.truncate(self.0.len().saturating_sub(count));
    }

    /// Ends the spans.
    pub fn succeed(mut self) {
        self.0.clear();
    }
}

impl Drop for EventSpans {
    fn drop(&mut self) {
        for span in &self.0 {
            span.record("otel.status_code", "ERROR");
        }
    }
}
