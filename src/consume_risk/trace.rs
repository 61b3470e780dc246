//! Spans that continue the trace of the request that created the transaction, for events with a sampled trace.

use std::collections::HashMap;

use opentelemetry::{Context, propagation::TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::reader::DecodedRecord;

/// Returns a span for each traced event among `records`. The caller drops the spans after the commit, which ends them.
pub(super) fn spans(records: &[DecodedRecord]) -> Vec<Span> {
    let traced = records.iter().filter_map(|record| {
        let event = record.event.as_ref().ok()?;
        Some((event, event.traceparent.as_deref().filter(|text| text.ends_with("01"))?))
    });
    traced
        .map(|(event, traceparent)| {
            let span = tracing::info_span!("assess", transaction = %event.created.transaction_id);
            // This fails only if traces are not exported.
            let _ = span.set_parent(parent(traceparent));
            span
        })
        .collect()
}

fn parent(traceparent: &str) -> Context {
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use chrono::Utc;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::{
        error::OTelSdkResult,
        trace::{SdkTracerProvider, SpanData, SpanExporter},
    };
    use tracing_subscriber::layer::SubscriberExt;
    use uuid::Uuid;

    use super::{super::decode::decode, *};
    use crate::{
        broker::FetchedRecord,
        event::{TRANSACTION_CREATED, cloud_event_headers},
    };

    /// Trace id and parent span id.
    type Ids = (String, String);

    #[derive(Debug, Clone, Default)]
    struct Exported(Arc<Mutex<Vec<Ids>>>);

    impl SpanExporter for Exported {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            let ids =
                |span: SpanData| (span.span_context.trace_id().to_string(), span.parent_span_id.to_string());
            self.0.lock().expect("no panic").extend(batch.into_iter().map(ids));
            Ok(())
        }
    }

    fn item(traceparent: Option<&str>) -> DecodedRecord {
        let value = serde_json::json!({
            "event_id": Uuid::nil(), "transaction_id": Uuid::nil(), "account_id": "acct-1", "account_seq": 1,
            "direction": "debit", "amount": "1.50", "currency": "EUR", "balance_after": "-1.50",
            "created_at": "2026-01-01T00:00:00Z"
        });
        let record = FetchedRecord {
            offset: 0,
            key: Some(b"acct-1"[..].into()),
            value: Some(value.to_string().into()),
            headers: cloud_event_headers(Uuid::nil(), TRANSACTION_CREATED, Utc::now(), traceparent),
            timestamp: Utc::now(),
            leader_epoch: None,
        };
        DecodedRecord { event: decode(&record), record }
    }

    /// Seen to fail when the code used the global propagator, which is never set.
    #[test]
    fn a_sampled_event_continues_the_trace_of_its_request_and_others_have_none() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let items = [
            item(None),
            item(Some(&format!("00-{trace}-{span}-00"))),
            item(Some(&format!("00-{trace}-{span}-01"))),
        ];
        let exported = Exported::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exported.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || drop(spans(&items)));
        let exported = exported.0.lock().expect("no panic").clone();
        assert_eq!(exported, [(trace.to_owned(), span.to_owned())]);
    }
}
