//! Receives the body of a request. The body must be declared as JSON, be complete in time and not exceed its size limit.

use actix_web::{HttpRequest, http::header, web};

use super::{
    problem::{Problem, ProblemKind},
    state::ApiState,
};

/// Receives a JSON body of at most `serve.body_size_max` bytes.
pub async fn json(
    request: &HttpRequest,
    payload: web::Payload,
    state: &ApiState,
) -> Result<web::Bytes, Problem> {
    json_up_to(state.config.serve.body_size_max, request, payload, state).await
}

/// Receives a JSON body of at most `limit` bytes.
pub async fn json_up_to(
    limit: usize,
    request: &HttpRequest,
    payload: web::Payload,
    state: &ApiState,
) -> Result<web::Bytes, Problem> {
    if !is_json(request) {
        return Err(Problem::new(
            ProblemKind::UnsupportedMediaType,
            "the Content-Type must be application/json",
        ));
    }
    if !is_plain(request) {
        let detail = "the body must be sent without Content-Encoding";
        return Err(Problem::new(ProblemKind::UnsupportedMediaType, detail));
    }
    let too_large =
        || Problem::new(ProblemKind::BodyTooLarge, format!("the body must have at most {limit} bytes"));
    if declared_length(request).is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let receiving = payload.to_bytes_limited(limit);
    match tokio::time::timeout(state.config.serve.client_timeout, receiving).await {
        Err(_) => Err(Problem::new(
            ProblemKind::RequestTimeout,
            format!("the body did not arrive within {:?}", state.config.serve.client_timeout),
        )),
        Ok(Err(_)) => Err(too_large()),
        Ok(Ok(Err(error))) => {
            Err(Problem::new(ProblemKind::Malformed, format!("the body cannot be read: {error}")))
        }
        Ok(Ok(Ok(bytes))) => Ok(bytes),
    }
}

fn declared_length(request: &HttpRequest) -> Option<usize> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_json(request: &HttpRequest) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn is_plain(request: &HttpRequest) -> bool {
    let coding = request.headers().get(header::CONTENT_ENCODING).map(header::HeaderValue::as_bytes);
    coding.is_none_or(|coding| coding.eq_ignore_ascii_case(b"identity"))
}
