//! Spans that continue the trace of the request which caused the event, for the events that carry a sampled one.

use std::collections::HashMap;

use opentelemetry::global;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::reader::Item;

/// A span for each traced event among `items`; they end when dropped, after the commit.
pub(super) fn spans(items: &[Item]) -> Vec<Span> {
    let traced = items.iter().filter_map(|item| {
        let event = item.decoded.as_ref().ok()?;
        Some((event, event.traceparent.as_deref().filter(|text| text.ends_with("01"))?))
    });
    traced
        .map(|(event, traceparent)| {
            let span = tracing::info_span!("assess", transaction = %event.created.transaction_id);
            let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
            let parent = global::get_text_map_propagator(|propagator| propagator.extract(&carrier));
            // Fails only where no trace is exported.
            let _ = span.set_parent(parent);
            span
        })
        .collect()
}
