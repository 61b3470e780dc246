//! What is seen of each request: a request id, a span that continues the caller's trace, metrics, and an access log
//! without bodies, keys or amounts. It also gives each problem its `instance`.

use std::time::Instant;

use actix_web::{
    Error, HttpMessage, HttpRequest,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
};
use opentelemetry::{propagation::TextMapPropagator, trace::TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

use super::problem::Problem;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_LENGTH_MAX: usize = 64;
const TRACEPARENT: &str = "traceparent";

/// The trace context that a request's event carries.
#[derive(Clone)]
struct TraceContext(String);

/// The W3C trace context of the request, for the event that it causes.
pub fn trace_context(request: &HttpRequest) -> Option<String> {
    request.extensions().get::<TraceContext>().map(|context| context.0.clone())
}

/// Wraps every route.
pub async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody, BoxBody>>, Error> {
    let started = Instant::now();
    let method = request.method().clone();
    // The pattern, not the path: no identifiers in labels.
    let route = request.match_pattern().unwrap_or_else(|| "unmatched".into());
    let request_id = request_id(request.headers());
    let span = tracing::info_span!(
        "request", otel.kind = "server", http.request.method = %method, http.route = %route, request_id = %request_id,
        http.response.status_code = tracing::field::Empty,
    );
    let parent = TraceContextPropagator::new().extract(&Carrier(request.headers()));
    // Without an exporter there is no span to continue; the caller's own context travels on instead.
    let context = match span.set_parent(parent.clone()) {
        Ok(()) if span.context().span().span_context().is_valid() => span.context(),
        _ => parent,
    };
    if let Some(traceparent) = traceparent(&context) {
        request.extensions_mut().insert(TraceContext(traceparent));
    }
    let response = next.call(request).instrument(span.clone()).await?;
    let mut response = with_instance(response);
    let status = response.status().as_u16();
    span.record("http.response.status_code", status);
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let elapsed = started.elapsed();
    tracing::debug!(parent: &span, %method, route, status, elapsed_us = elapsed.as_micros(), "answered");
    let labels = [("method", method.to_string()), ("route", route)];
    metrics::histogram!("ledger_http_request_duration_seconds", &labels).record(elapsed.as_secs_f64());
    let [method, route] = labels;
    metrics::counter!("ledger_http_requests_total", &[method, route, ("status", status.to_string())])
        .increment(1);
    Ok(response)
}

/// Problems know everything but the path; now it is known.
fn with_instance<B: MessageBody>(response: ServiceResponse<B>) -> ServiceResponse<EitherBody<B, BoxBody>> {
    let problem = response.response().error().and_then(|error| error.as_error::<Problem>().cloned());
    match problem {
        None => response.map_into_left_body(),
        Some(problem) => {
            let instance = response.request().path().to_owned();
            let (request, _) = response.into_parts();
            ServiceResponse::new(request, problem.respond(&instance)).map_into_right_body()
        }
    }
}

/// A short, plain id of the client's is taken over; anything else is replaced by one of ours.
fn request_id(headers: &HeaderMap) -> String {
    let plain = |text: &&str| {
        (1..=REQUEST_ID_LENGTH_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(plain);
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

fn traceparent(context: &opentelemetry::Context) -> Option<String> {
    let span = context.span();
    let span = span.span_context();
    span.is_valid()
        .then(|| format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8()))
}

struct Carrier<'a>(&'a HeaderMap);

impl opentelemetry::propagation::Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, "tracestate"]
    }
}
