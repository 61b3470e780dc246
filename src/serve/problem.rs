//! Every error answer of the API: RFC 9457 `application/problem+json` with a stable `type`.
//!
//! `docs/problems.md` documents each type. Internal errors are logged here, once; the client gets the part that it can
//! act on.

use std::time::Duration;

use actix_web::{HttpResponse, ResponseError, body::BoxBody, http::StatusCode, http::header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{Decision, Refusal, format_minor},
    repository::RepositoryError,
};

/// A field with a wrong value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// The name of the JSON field, query parameter or header.
    pub field: String,
    /// Why the value is refused.
    pub message: String,
}

/// The kind of a problem, which decides its status, type and title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// 400: the body is not JSON, or a header or query parameter is wrong.
    Malformed,
    /// 404: the path, transaction or account does not exist.
    NotFound,
    /// 405, with `Allow`: the path has other methods.
    MethodNotAllowed,
    /// 408: the request did not arrive in time.
    RequestTimeout,
    /// 413: the body is larger than allowed.
    BodyTooLarge,
    /// 414: the path and query are longer than allowed.
    UriTooLong,
    /// 431: the headers are larger than allowed.
    HeadersTooLarge,
    /// 415: the body is not declared as JSON, or is compressed.
    UnsupportedMediaType,
    /// 421: the host of the request is not one that the listener answers to.
    MisdirectedRequest,
    /// 422: fields with wrong values.
    Validation,
    /// 422: the key was used for another request.
    IdempotencyKeyReused,
    /// 422: the account holds another currency.
    CurrencyMismatch,
    /// 422: the debit would go below the account's limit.
    LimitExceeded,
    /// 422: the balance would exceed the range that the ledger supports.
    BalanceOutOfRange,
    /// 422: the transaction is a reversal, which cannot be reversed.
    NotReversible,
    /// 429, with `Retry-After`: the client exceeds its rate limit.
    TooManyRequests,
    /// 503, with `Retry-After`: the request can be retried with the same key.
    Unavailable,
    /// 500: a bug.
    Internal,
}

impl ProblemKind {
    /// All kinds.
    pub const ALL: [Self; 18] = [
        Self::Malformed,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::HeadersTooLarge,
        Self::UnsupportedMediaType,
        Self::MisdirectedRequest,
        Self::Validation,
        Self::IdempotencyKeyReused,
        Self::CurrencyMismatch,
        Self::LimitExceeded,
        Self::BalanceOutOfRange,
        Self::NotReversible,
        Self::TooManyRequests,
        Self::Unavailable,
        Self::Internal,
    ];

    /// Returns the last part of the type `urn:ledger:problem:…`.
    pub fn name(self) -> &'static str {
        self.facts().1
    }

    /// Returns the title, which all problems of this kind share.
    pub fn title(self) -> &'static str {
        self.facts().2
    }

    /// Returns the HTTP status.
    pub fn status(self) -> StatusCode {
        self.facts().0
    }

    /// Returns the status, the name in the type, and the title.
    fn facts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "malformed-request", "The request is malformed"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "The resource does not exist"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here")
            }
            Self::RequestTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "request-timeout", "The request did not arrive in time")
            }
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::UriTooLong => (StatusCode::URI_TOO_LONG, "uri-too-long", "The path and query are too long"),
            Self::HeadersTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers-too-large",
                "The headers are too large",
            ),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body must be JSON")
            }
            Self::MisdirectedRequest => {
                (StatusCode::MISDIRECTED_REQUEST, "misdirected-request", "The API does not have this host")
            }
            Self::Validation => (StatusCode::UNPROCESSABLE_ENTITY, "validation", "Some fields are not valid"),
            Self::IdempotencyKeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The idempotency key was used for another request",
            ),
            Self::CurrencyMismatch => {
                (StatusCode::UNPROCESSABLE_ENTITY, "currency-mismatch", "The account holds another currency")
            }
            Self::LimitExceeded => {
                (StatusCode::UNPROCESSABLE_ENTITY, "limit-exceeded", "The account's limit would be exceeded")
            }
            Self::BalanceOutOfRange => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "balance-out-of-range",
                "The balance would exceed the supported range",
            ),
            Self::NotReversible => {
                (StatusCode::UNPROCESSABLE_ENTITY, "not-reversible", "The transaction cannot be reversed")
            }
            Self::TooManyRequests => {
                (StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests from this client")
            }
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The service is temporarily unavailable")
            }
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "An internal error occurred"),
        }
    }
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The kind, which decides the status, type and title.
    pub kind: ProblemKind,
    /// The cause in this case, and the remedy.
    pub detail: String,
    /// Every field with a wrong value.
    pub errors: Vec<FieldProblem>,
    /// An additional header: `Allow` or `Retry-After`.
    header: Option<(header::HeaderName, String)>,
}

/// A problem as RFC 9457 defines it. docs/problems.md documents each type.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemOut<'a> {
    /// Stable; programs decide by it.
    #[serde(rename = "type")]
    problem_type: String,
    /// The same for all problems of a type.
    title: &'static str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// The cause in this case, for a person.
    detail: &'a str,
    /// The path of the request.
    instance: &'a str,
    /// The fields with wrong values, if the problem is about fields.
    #[serde(skip_serializing_if = "<[FieldProblem]>::is_empty")]
    #[schema(value_type = Vec<FieldProblem>, required = false)]
    errors: &'a [FieldProblem],
}

/// The detail of an internal error, which says nothing about the inside of the server.
pub const INTERNAL_DETAIL: &str =
    "this is a bug in the server; report it with the X-Request-Id of this answer";

/// How long a client should wait before it retries after a 503.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Problem {
    /// Creates a problem.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let retry = (kind == ProblemKind::Unavailable)
            .then(|| (header::RETRY_AFTER, RETRY_AFTER.as_secs().to_string()));
        Self { kind, detail: detail.into(), errors: Vec::new(), header: retry }
    }

    /// Creates a 422 that lists all fields with wrong values.
    pub fn validation(errors: Vec<FieldProblem>) -> Self {
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        Self {
            errors: errors.clone(),
            ..Self::new(ProblemKind::Validation, format!("fields with wrong values: {}", fields.join(", ")))
        }
    }

    /// Adds the fields with wrong values.
    #[must_use]
    pub fn with_errors(self, errors: Vec<FieldProblem>) -> Self {
        Self { errors, ..self }
    }

    /// Logs that an answer cannot be written as JSON, which is a bug, and creates a 500.
    pub fn not_serializable(error: &serde_json::Error) -> Self {
        tracing::error!(%error, "an answer cannot be written as JSON");
        Self::new(ProblemKind::Internal, INTERNAL_DETAIL)
    }

    /// Creates the problem for an error status of the HTTP library. Returns None for any other status.
    pub fn from_status(status: StatusCode) -> Option<Self> {
        match status {
            StatusCode::NOT_FOUND => Some(Self::new(ProblemKind::NotFound, "this path does not exist")),
            StatusCode::BAD_REQUEST => Some(Self::new(ProblemKind::Malformed, "the request cannot be read")),
            status if status.is_server_error() => Some(Self::new(ProblemKind::Internal, INTERNAL_DETAIL)),
            _ => None,
        }
    }

    /// Creates a 429 with the time to wait.
    pub fn too_many_requests(seconds: u64) -> Self {
        Self {
            header: Some((header::RETRY_AFTER, seconds.to_string())),
            ..Self::new(
                ProblemKind::TooManyRequests,
                format!("the rate limit of this client is exceeded; retry in {seconds} s"),
            )
        }
    }

    /// Creates a 405 with the allowed methods.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self {
            header: Some((header::ALLOW, allow.into())),
            ..Self::new(ProblemKind::MethodNotAllowed, format!("this path allows: {allow}"))
        }
    }

    /// Creates the problem for a decision without a transaction. Returns None for a decision with one.
    pub fn from_decision(decision: &Decision) -> Option<Self> {
        match decision {
            Decision::Create(_) | Decision::Replay(_) => None,
            Decision::Mismatch { field } => Some(Self {
                errors: vec![FieldProblem {
                    field: (*field).into(),
                    message: "differs from the first request with this key".into(),
                }],
                ..Self::new(
                    ProblemKind::IdempotencyKeyReused,
                    format!("the key was first used for a request with another {field}; send a new key"),
                )
            }),
            Decision::Refused(refusal) => Some(Self::from_refusal(refusal)),
        }
    }

    fn from_refusal(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::CurrencyMismatch { account_currency } => Self::new(
                ProblemKind::CurrencyMismatch,
                format!("the account holds {account_currency}; post in that currency"),
            ),
            Refusal::LimitExceeded { balance, min_balance, currency } => Self::new(
                ProblemKind::LimitExceeded,
                format!(
                    "the balance is {} {currency} and must not go below {}",
                    format_minor(*balance, *currency),
                    format_minor(*min_balance, *currency)
                ),
            ),
            Refusal::BalanceOutOfRange => {
                Self::new(ProblemKind::BalanceOutOfRange, "the balance would have more than 18 digits")
            }
            Refusal::BeforeLastTransaction { last_created_at } => Self::new(
                ProblemKind::Validation,
                format!("the account's last transaction, of {last_created_at}, is later than this one"),
            ),
            Refusal::InFuture { now } => {
                Self::new(ProblemKind::Validation, format!("this transaction is later than now, {now}"))
            }
        }
    }

    /// Returns the JSON of the problem. `instance` is the path of the request.
    pub fn to_json<'a>(&'a self, instance: &'a str) -> ProblemOut<'a> {
        let (status, name, title) = self.kind.facts();
        ProblemOut {
            problem_type: format!("urn:ledger:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            instance,
            errors: &self.errors,
        }
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        self.kind.facts().0
    }

    /// Returns the answer to a request for the path `instance`.
    pub fn respond(&self, instance: &str) -> HttpResponse {
        let mut response = HttpResponse::build(self.status());
        if let Some((name, value)) = &self.header {
            response.insert_header((name.clone(), value.as_str()));
        }
        response
            .insert_header((header::CONTENT_TYPE, "application/problem+json"))
            .body(serde_json::to_string(&self.to_json(instance)).unwrap_or_default())
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.detail)
    }
}

/// `instance` is empty here; the middleware in `observe.rs` knows the path and sets it.
impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        self.respond("")
    }
}

impl From<RepositoryError> for Problem {
    fn from(error: RepositoryError) -> Self {
        if error.is_transient() {
            tracing::warn!(%error, "a read failed: the database is unavailable");
            return Self::new(ProblemKind::Unavailable, "the database is unavailable; retry the request");
        }
        tracing::error!(%error, "the database refused a statement, which is a bug");
        Self::new(ProblemKind::Internal, INTERNAL_DETAIL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_documented_with_its_status() {
        let page = include_str!("../../docs/problems.md");
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        for kind in ProblemKind::ALL {
            let (status, name, _) = kind.facts();
            let row = format!("| `{name}` | {} |", status.as_u16());
            assert!(page.contains(&row), "docs/problems.md has no row {row}");
        }
        assert_eq!(rows, ProblemKind::ALL.len(), "one row for each kind");
    }
}
