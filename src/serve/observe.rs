//! What is seen of each request: a request id, a span that continues the caller's trace, metrics, and an access log
//! without bodies, keys or amounts. It also gives each problem its `instance`.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::HashMap,
    time::{Duration, Instant},
};

use actix_web::{
    Error, HttpMessage, HttpRequest,
    body::{BodySize, BoxBody, EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};
use chrono::Utc;
use metrics::{Counter, Histogram};
use opentelemetry::{propagation::TextMapPropagator, trace::TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::{Builder, Uuid};

use super::{
    problem::{Problem, ProblemKind},
    rate_limit::client_address,
    state::ApiState,
};

/// The access log's name in `log.filter`; its lines are of level debug.
const ACCESS_LOG: &str = "ledger::access";
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const URI_LENGTH_MAX: usize = 8 * 1024;
const HEADERS_SIZE_MAX: usize = 16 * 1024;
const INSTANCE_LENGTH_MAX: usize = 1024;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_LENGTH_MAX: usize = 64;
const TRACEPARENT: &str = "traceparent";

/// The pattern of a resource, as its data. In labels it stands for the path, which has identifiers; asking actix for
/// it would mean to match the path once more at every request.
pub struct Route(pub &'static str);
const UNMATCHED: &str = "unmatched";

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
    let method = known_method(request.method());
    let request_id = request_id(request.headers());
    let span = span(&request, method, &request_id);
    if let Some(traceparent) = continue_trace(&span, request.headers()) {
        request.extensions_mut().insert(TraceContext(traceparent));
    }
    let mut response = match beyond_limits(&request) {
        Some(problem) => {
            let answer = problem.respond(short(request.path()));
            request.into_response(answer).map_into_right_body()
        }
        None => with_problem(next.call(request).instrument(span.clone()).await?),
    };
    let status = response.status().as_u16();
    let route = route(response.request());
    span.record("http.response.status_code", status);
    if status == 500 && span.is_disabled() {
        tracing::error!(request_id, method, route = &*route, "answered 500");
    }
    if let Ok(value) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let elapsed = started.elapsed();
    if says_timing(response.request()) {
        let value = format!("total;dur={:.3}", elapsed.as_secs_f64() * 1000.0);
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(SERVER_TIMING, value);
        }
    }
    log(&span, &response, method, &route, elapsed);
    if let Some(meter) = response.request().app_data::<Meter>() {
        meter.answered(method, route, status, elapsed);
    }
    Ok(response)
}

/// What is answered before it came to its resource is counted there all the same: a rate limit, a length.
fn route(request: &HttpRequest) -> Cow<'static, str> {
    match request.app_data::<Route>() {
        Some(route) => Cow::Borrowed(route.0),
        None => request.match_pattern().map_or(Cow::Borrowed(UNMATCHED), Cow::Owned),
    }
}

/// A span costs several microseconds, so there is one only where somebody sees it: in exported traces, or in a log of
/// every answer.
fn span(request: &ServiceRequest, method: &'static str, request_id: &str) -> Span {
    let exported = request.app_data::<web::Data<ApiState>>().is_some_and(|state| state.exports_traces);
    if !exported && !tracing::enabled!(target: ACCESS_LOG, tracing::Level::DEBUG) {
        return Span::none();
    }
    tracing::info_span!(
        "request",
        otel.kind = "server",
        http.request.method = method,
        http.route = request.match_pattern().as_deref().unwrap_or(UNMATCHED),
        request_id,
        http.response.status_code = tracing::field::Empty,
    )
}

/// Puts the span into the caller's trace and answers the context for what the request causes. Without an exporter
/// there is no span to continue; the caller's own context travels on instead.
fn continue_trace(span: &Span, headers: &HeaderMap) -> Option<String> {
    let given = headers.contains_key(TRACEPARENT);
    let parent = given.then(|| TraceContextPropagator::new().extract(&Carrier(headers)));
    if let Some(parent) = &parent {
        // It fails without an exporter.
        let _ = span.set_parent(parent.clone());
    }
    let own = if span.is_disabled() { None } else { traceparent(&span.context()) };
    own.or_else(|| traceparent(&parent?))
}

/// Method, route and status.
type Answered = (&'static str, Cow<'static, str>, u16);

/// The metrics of one HTTP worker, each looked up once and not at every request.
#[derive(Default)]
pub struct Meter(RefCell<HashMap<Answered, (Histogram, Counter)>>);

impl Meter {
    fn answered(&self, method: &'static str, route: Cow<'static, str>, status: u16, elapsed: Duration) {
        let mut known = self.0.borrow_mut();
        let (duration, requests) = known.entry((method, route, status)).or_insert_with_key(look_up);
        duration.record(elapsed.as_secs_f64());
        requests.increment(1);
    }
}

fn look_up((method, route, status): &Answered) -> (Histogram, Counter) {
    let (method, route, status) = (*method, route.clone().into_owned(), status.to_string());
    (
        metrics::histogram!("ledger_http_request_duration_seconds", "method" => method, "route" => route.clone()),
        metrics::counter!("ledger_http_requests_total", "method" => method, "route" => route, "status" => status),
    )
}

/// The access log: one line a request, off unless the filter asks for it. Neither path nor query are in it, since
/// they name accounts and amounts.
fn log<B: MessageBody>(
    span: &Span,
    response: &ServiceResponse<B>,
    method: &'static str,
    route: &str,
    elapsed: Duration,
) {
    if !tracing::enabled!(target: ACCESS_LOG, tracing::Level::DEBUG) {
        return;
    }
    let request = response.request();
    let trusted_proxies = state(request).map_or(0, |state| state.config.serve.trusted_proxies);
    let peer = request.peer_addr().map(|peer| peer.ip());
    let client = peer.map(|peer| client_address(peer, request.headers(), trusted_proxies).to_string());
    let bytes = match response.response().body().size() {
        BodySize::Sized(bytes) => bytes,
        _ => 0,
    };
    tracing::debug!(
        target: ACCESS_LOG, parent: span, client, method, route, status = response.status().as_u16(), bytes,
        elapsed_us = elapsed.as_micros(), "answered"
    );
}

fn state(request: &HttpRequest) -> Option<&web::Data<ApiState>> {
    request.app_data::<web::Data<ApiState>>()
}

fn says_timing(request: &HttpRequest) -> bool {
    state(request).is_some_and(|state| state.config.serve.server_timing)
}

/// A label has few values, whatever a client makes up.
fn known_method(method: &Method) -> &'static str {
    let known = ["GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
    known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

fn beyond_limits(request: &ServiceRequest) -> Option<Problem> {
    let uri = request.uri();
    let uri_length = uri.path().len() + uri.query().map_or(0, str::len);
    if uri_length > URI_LENGTH_MAX {
        let detail = format!("path and query must be at most {URI_LENGTH_MAX} bytes");
        return Some(Problem::new(ProblemKind::UriTooLong, detail));
    }
    let headers = request.headers().iter();
    let headers_size: usize = headers.map(|(name, value)| name.as_str().len() + value.len()).sum();
    let detail = || format!("the headers must be at most {HEADERS_SIZE_MAX} bytes");
    (headers_size > HEADERS_SIZE_MAX).then(|| Problem::new(ProblemKind::HeadersTooLarge, detail()))
}

/// The path for a problem's `instance`, which need not be as long as the request.
fn short(path: &str) -> &str {
    path.get(..INSTANCE_LENGTH_MAX).unwrap_or(path)
}

/// Problems know everything but the path; now it is known. An error that is none of ours yet becomes one.
fn with_problem<B: MessageBody>(response: ServiceResponse<B>) -> ServiceResponse<EitherBody<B, BoxBody>> {
    let problem = response.response().error().and_then(|error| error.as_error::<Problem>().cloned());
    let problem = problem.or_else(|| {
        let headers = response.headers().get(header::CONTENT_TYPE);
        let is_one = headers.is_some_and(|kind| kind == "application/problem+json");
        if is_one { None } else { Problem::from_status(response.status()) }
    });
    match problem {
        None => response.map_into_left_body(),
        Some(problem) => {
            let instance = short(response.request().path()).to_owned();
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
    given.map_or_else(|| new_request_id().to_string(), str::to_owned)
}

/// A UUIDv7 as `Uuid::now_v7` makes it, without asking the kernel for randomness each time.
fn new_request_id() -> Uuid {
    let millis = u64::try_from(Utc::now().timestamp_millis()).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
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
