//! The spans of the roles, as an OTLP collector receives them by gRPC. The collector of this test is a plain HTTP/2 server
//! that decodes the requests.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    api::{client, transaction},
    eventually_within,
    system::System,
};

const WAIT_MAX: Duration = Duration::from_secs(120);
/// The compression flag and the length in front of a gRPC message.
const FRAME_BYTES: usize = 5;
const PARENT: &str = "00f067aa0ba902b7";

/// A span and the attributes of its process.
type Received = (Span, Vec<KeyValue>);

/// A collector that keeps all spans.
#[derive(Clone)]
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Received>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let collector = Self { address, spans: Arc::default() };
        let shared = collector.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(shared.clone().serve(connection));
            }
        });
        collector
    }

    async fn serve(self, connection: TcpStream) {
        let mut connection = h2::server::handshake(connection).await.expect("HTTP/2");
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let collector = self.clone();
            tokio::spawn(async move {
                let mut body = request.into_body();
                let mut bytes = Vec::new();
                while let Some(Ok(part)) = body.data().await {
                    let _ = body.flow_control().release_capacity(part.len());
                    bytes.extend_from_slice(&part);
                }
                collector.keep(&bytes);
                let answer = http::Response::builder().header("content-type", "application/grpc");
                let mut stream = respond.send_response(answer.body(()).expect("valid"), false).expect("sent");
                stream.send_data(vec![0; FRAME_BYTES].into(), false).expect("sent");
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                stream.send_trailers(trailers).expect("sent");
            });
        }
    }

    fn keep(&self, bytes: &[u8]) {
        let message = bytes.get(FRAME_BYTES..).expect("a frame");
        let request = ExportTraceServiceRequest::decode(message).expect("OTLP");
        let mut spans = self.spans.lock().expect("no panic");
        for group in request.resource_spans {
            let process = group.resource.map(|resource| resource.attributes).unwrap_or_default();
            let found = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(found.map(|span| (span, process.clone())));
        }
    }

    /// Waits for a span of a trace.
    async fn span(&self, trace: &str, name: &str) -> Received {
        let found = || {
            let spans = self.spans.lock().expect("no panic").clone();
            spans.into_iter().find(|(span, _)| span.name == name && hex(&span.trace_id) == trace)
        };
        eventually_within(WAIT_MAX, &format!("the span {name} of {trace}"), async || found().is_some()).await;
        found().expect("just seen")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{name} is {other:?} in {attributes:?}"),
    }
}

async fn post(url: &str, key: &str, trace: &str) -> u16 {
    let request = client().post(format!("{url}/transactions")).header("idempotency-key", key);
    let request = request.header("traceparent", format!("00-{trace}-{PARENT}-01"));
    let answer =
        request.json(&transaction("acct-1", "credit", "1.00", "EUR")).send().await.expect("an answer");
    answer.status().as_u16()
}

/// A trace that ends at the outbox does not show how long an event waited, or which consumer it failed in.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_trace_from_the_api_through_relay_and_consumer() {
    let system = System::on_postgres().await;
    let collector = Collector::start().await;
    let endpoint = format!("http://{}", collector.address);
    let export = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "200")];
    let (serve, url) = system.serve(&export);
    let _relay = system.start("relay", &export);
    let _consumer = system.start("consume-risk", &export);

    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!(post(&url, "k-1", trace).await, 201);
    let (request, process) = collector.span(trace, "POST /transactions").await;
    assert_eq!((request.kind(), hex(&request.parent_span_id)), (SpanKind::Server, PARENT.to_owned()));
    assert_eq!(text(&request.attributes, "http.response.status_code"), "201");
    assert_eq!(text(&process, "service.name"), "ledger-serve");
    assert_eq!(text(&process, "service.version"), env!("CARGO_PKG_VERSION"));
    assert!(text(&process, "service.instance.id").contains(&serve.process_id().to_string()));
    for (name, kind) in
        [("publish transactions.v1", SpanKind::Producer), ("process transactions.v1", SpanKind::Consumer)]
    {
        let (span, _) = collector.span(trace, name).await;
        assert_eq!((span.kind(), &span.parent_span_id), (kind, &request.span_id), "{name}");
        assert_eq!(text(&span.attributes, "messaging.destination.name"), "transactions.v1");
        assert!(span.status.is_none_or(|status| status.code() != StatusCode::Error), "{name}");
    }
    let (published, _) = collector.span(trace, "publish transactions.v1").await;
    assert!(text(&published.attributes, "ledger.outbox.wait_ms").parse::<i64>().is_ok());

    let client = system.database.client().await;
    client.batch_execute("ALTER TABLE transactions RENAME TO hidden").await.expect("renamed");
    let failed = "5bf92f3577b34da6a3ce929d0e0e4737";
    let status = post(&url, "k-2", failed).await;
    assert!(status >= 500, "{status}");
    let (request, _) = collector.span(failed, "POST /transactions").await;
    assert_eq!(request.status.map(|status| status.code()), Some(StatusCode::Error));
    assert_eq!(text(&request.attributes, "error.type"), status.to_string());
}
