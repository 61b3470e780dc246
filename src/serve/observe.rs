//! The outermost middleware, which every request passes through. It
//!
//! - gives the request an id and a span that continues the client's trace,
//! - refuses a path, query or headers above their size limits, and a host that is not the API's,
//! - turns errors into problems and sets their `instance`,
//! - counts the answer in the metrics and writes the access log, without bodies, keys or amounts.

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
use crate::runtime::wall_clock;

/// The target of the access log in `log.filter`. Its level is debug.
const ACCESS_LOG: &str = "ledger::access";
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const URI_LENGTH_MAX: usize = 8 * 1024;
const HEADERS_SIZE_MAX: usize = 16 * 1024;
const INSTANCE_LENGTH_MAX: usize = 1024;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_LENGTH_MAX: usize = 64;
const TRACEPARENT: &str = "traceparent";

/// The pattern of a resource. Metrics use it as a label, because the path contains identifiers. It is kept in the data
/// of the resource, because actix would match the path again to find it.
pub struct RoutePattern(pub &'static str);
/// The label of a path without a resource.
const UNMATCHED: &str = "unmatched";

/// The W3C trace context that the event of a request carries.
#[derive(Clone)]
struct TraceContext(String);

/// Returns the W3C trace context for the event that the request causes.
pub fn trace_context(request: &HttpRequest) -> Option<String> {
    request.extensions().get::<TraceContext>().map(|context| context.0.clone())
}

/// Handles a request as the module describes.
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
    let mut response = match limit_problem(&request).or_else(|| host_problem(&request)) {
        Some(problem) => {
            let answer = problem.respond(bounded(request.path()));
            request.into_response(answer).map_into_right_body()
        }
        None => with_problem(next.call(request).instrument(span.clone()).await?),
    };
    let status = response.status().as_u16();
    let route = route(response.request());
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR").record("error.type", status);
    }
    if status == 500 && span.is_disabled() {
        tracing::error!(request_id, method, route = &*route, "answered 500");
    }
    if let Ok(value) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let elapsed = started.elapsed();
    if sends_timing(response.request()) {
        let value = format!("total;dur={:.3}", elapsed.as_secs_f64() * 1000.0);
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(SERVER_TIMING, value);
        }
    }
    log(&span, &response, method, &route, elapsed);
    if let Some(metrics) = response.request().app_data::<RequestMetrics>() {
        metrics.record(method, route, status, elapsed);
    }
    Ok(response)
}

/// Returns the pattern of the request's resource, also if the request was answered before it reached the resource, for
/// example by the rate limit.
fn route(request: &HttpRequest) -> Cow<'static, str> {
    match request.app_data::<RoutePattern>() {
        Some(route) => Cow::Borrowed(route.0),
        None => request.match_pattern().map_or(Cow::Borrowed(UNMATCHED), Cow::Owned),
    }
}

/// Creates the span of a request. A span costs several microseconds, so there is none unless traces are exported or the
/// access log is on.
fn span(request: &ServiceRequest, method: &'static str, request_id: &str) -> Span {
    let exported = request.app_data::<web::Data<ApiState>>().is_some_and(|state| state.exports_traces);
    if !exported && !tracing::enabled!(target: ACCESS_LOG, tracing::Level::DEBUG) {
        return Span::none();
    }
    let pattern = request.match_pattern();
    let route = pattern.as_deref().unwrap_or(UNMATCHED);
    tracing::info_span!(
        "request",
        otel.name = %format_args!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        error.r#type = tracing::field::Empty,
        http.request.method = method,
        http.route = route,
        request_id,
        trace_id = tracing::field::Empty,
        http.response.status_code = tracing::field::Empty,
    )
}

/// Makes the span part of the client's trace. Returns the trace context for the event that the request causes: that of
/// the span, or the client's own if there is no span.
fn continue_trace(span: &Span, headers: &HeaderMap) -> Option<String> {
    let given = headers.contains_key(TRACEPARENT);
    let parent = given.then(|| TraceContextPropagator::new().extract(&HeaderCarrier(headers)));
    if let Some(parent) = &parent {
        // This fails if no traces are exported.
        let _ = span.set_parent(parent.clone());
    }
    let own = if span.is_disabled() { None } else { traceparent(&span.context()) };
    if let Some(own) = &own {
        // Log lines of the request name its trace.
        span.record("trace_id", own.get(3..35));
    }
    own.or_else(|| traceparent(&parent?))
}

/// Starts the counters of failed posts at 0, so that the first failure counts.
pub fn start_counters() {
    for route in ["/transactions", "/transactions/batch"] {
        for status in [500, 503] {
            drop(look_up(&("POST", route.into(), status)));
        }
    }
}

/// Method, route and status.
type Labels = (&'static str, Cow<'static, str>, u16);

/// The metrics of one HTTP worker. Each is looked up once instead of at every request.
#[derive(Default)]
pub struct RequestMetrics(RefCell<HashMap<Labels, (Histogram, Counter)>>);

impl RequestMetrics {
    fn record(&self, method: &'static str, route: Cow<'static, str>, status: u16, elapsed: Duration) {
        let mut known = self.0.borrow_mut();
        let (duration, requests) = known.entry((method, route, status)).or_insert_with_key(look_up);
        duration.record(elapsed.as_secs_f64());
        requests.increment(1);
    }
}

fn look_up((method, route, status): &Labels) -> (Histogram, Counter) {
    let (method, route, status) = (*method, route.clone().into_owned(), status.to_string());
    (
        metrics::histogram!("ledger_http_request_duration_seconds", "method" => method, "route" => route.clone()),
        metrics::counter!("ledger_http_requests_total", "method" => method, "route" => route, "status" => status),
    )
}

/// Writes a line of the access log, if the log filter enables it. Path and query are left out, because they contain
/// accounts and amounts.
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
        elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), "answered"
    );
}

fn state(request: &HttpRequest) -> Option<&web::Data<ApiState>> {
    request.app_data::<web::Data<ApiState>>()
}

fn sends_timing(request: &HttpRequest) -> bool {
    state(request).is_some_and(|state| state.config.serve.server_timing)
}

/// Returns the method as a label. Invented methods share one value.
fn known_method(method: &Method) -> &'static str {
    let known = ["GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
    known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// Returns a 414 or 431 if the path and query or the headers exceed their size limits.
fn limit_problem(request: &ServiceRequest) -> Option<Problem> {
    let uri = request.uri();
    let uri_length = uri.path().len() + uri.query().map_or(0, str::len);
    if uri_length > URI_LENGTH_MAX {
        let detail = format!("path and query must have at most {URI_LENGTH_MAX} bytes");
        return Some(Problem::new(ProblemKind::UriTooLong, detail));
    }
    let headers = request.headers().iter();
    let headers_size: usize = headers.map(|(name, value)| name.as_str().len() + value.len()).sum();
    let detail = || format!("the headers must have at most {HEADERS_SIZE_MAX} bytes");
    (headers_size > HEADERS_SIZE_MAX).then(|| Problem::new(ProblemKind::HeadersTooLarge, detail()))
}

/// Returns a 421 if the request may come from a web page of another site.
fn host_problem(request: &ServiceRequest) -> Option<Problem> {
    let state = request.app_data::<web::Data<ApiState>>()?;
    let why = state.hosts.refusal(request.headers())?;
    Some(Problem::new(ProblemKind::MisdirectedRequest, why))
}

/// Returns the path for a problem's `instance`, cut to a bounded length.
fn bounded(path: &str) -> &str {
    path.get(..INSTANCE_LENGTH_MAX).unwrap_or(path)
}

/// Sets the `instance` of a problem, and replaces an error of the HTTP library by a problem.
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
            let instance = bounded(response.request().path()).to_owned();
            let (request, _) = response.into_parts();
            ServiceResponse::new(request, problem.respond(&instance)).map_into_right_body()
        }
    }
}

/// Returns the client's request id if it is short and has plain characters only, otherwise a new one.
fn request_id(headers: &HeaderMap) -> String {
    let plain = |text: &&str| {
        (1..=REQUEST_ID_LENGTH_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(plain);
    given.map_or_else(|| new_request_id().to_string(), str::to_owned)
}

/// Returns a UUIDv7 like `Uuid::now_v7`, but without a system call for randomness.
fn new_request_id() -> Uuid {
    let millis = u64::try_from(wall_clock().timestamp_millis()).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
}

fn traceparent(context: &opentelemetry::Context) -> Option<String> {
    let span = context.span();
    let span = span.span_context();
    span.is_valid()
        .then(|| format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8()))
}

/// Reads the trace context from the headers of a request.
struct HeaderCarrier<'a>(&'a HeaderMap);

impl opentelemetry::propagation::Extractor for HeaderCarrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, "tracestate"]
    }
}
