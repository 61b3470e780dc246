//! Spans that continue the trace of the request that created the transaction, for events with a sampled trace.

use super::{decode::Event, reader::DecodedRecord};
use crate::{
    event::TRANSACTIONS_TOPIC,
    runtime::{EventSpans, is_sampled},
};

/// Returns a span for each traced event among `records`, from here to the commit.
pub(super) fn spans(records: &[DecodedRecord]) -> EventSpans {
    let mut spans = EventSpans::default();
    for (record, event, traceparent) in traced(records) {
        let span = tracing::info_span!(
            target: "ledger::events",
            "process",
            otel.name = %format_args!("process {TRANSACTIONS_TOPIC}"),
            otel.kind = "consumer",
            otel.status_code = tracing::field::Empty,
            messaging.operation.r#type = "process",
            messaging.destination.name = TRANSACTIONS_TOPIC,
            messaging.message.id = %event.created.event_id,
            messaging.kafka.offset = record.record.offset,
            ledger.transaction.id = %event.created.transaction_id,
        );
        spans.add(span, traceparent);
    }
    spans
}

/// Returns the records of events with a sampled trace, each with its event and its `traceparent`.
pub(super) fn traced(records: &[DecodedRecord]) -> impl Iterator<Item = (&DecodedRecord, &Event, &str)> {
    records.iter().filter_map(|record| {
        let event = record.event.as_ref().ok()?;
        Some((record, event, event.traceparent.as_deref().filter(|text| is_sampled(text))?))
    })
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
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            spans(&items).succeed()
        });
        let exported = exported.0.lock().expect("no panic").clone();
        assert_eq!(exported, [(trace.to_owned(), span.to_owned())]);
    }
}
