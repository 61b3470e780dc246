//! Web pages of other origins (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>), off unless
//! `serve.cors_origins` names exact origins.
//!
//! A page of another origin gets no permission, so its browser neither sends a request that writes nor shows it an answer.
//! Preflight requests are answered here, before anything is counted or logged.

use actix_cors::Cors;

/// The headers of a request that pages may set.
const REQUEST_HEADERS: [&str; 4] = ["content-type", "idempotency-key", "traceparent", "x-request-id"];
/// The headers of an answer that pages may read.
const ANSWER_HEADERS: [&str; 4] = ["idempotent-replayed", "location", "retry-after", "x-request-id"];
/// Browsers ask again after an hour.
const MAX_AGE_SECONDS: usize = 3600;

/// Creates the middleware that permits these origins.
pub fn cors(origins: &[String]) -> Cors {
    let permitted = Cors::default()
        .allowed_methods(["GET", "HEAD", "POST", "PUT"])
        .allowed_headers(REQUEST_HEADERS)
        .expose_headers(ANSWER_HEADERS)
        .block_on_origin_mismatch(false)
        .max_age(MAX_AGE_SECONDS);
    origins.iter().fold(permitted, |permitted, origin| permitted.allowed_origin(origin))
}
