//! Every error answer of the API, in one place: RFC 9457 `application/problem+json` with a stable `type`.
//! `docs/problems.md` documents each type. What goes wrong inside is logged here, once, and told to the client only
//! as far as it can act on it.

use std::time::Duration;

use actix_web::{HttpResponse, ResponseError, body::BoxBody, http::StatusCode, http::header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{Decision, Refusal, format_minor},
    repository::RepositoryError,
};

/// One field that is wrong, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// The JSON field, query parameter or header.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// The kinds of problems: the last part of `urn:ledger:problem:…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// 400: no JSON, a bad header, a bad query parameter.
    Malformed,
    /// 404: no such route or thing.
    NotFound,
    /// 405, with `Allow`.
    MethodNotAllowed,
    /// 408: the request did not arrive in time.
    RequestTimeout,
    /// 413: the body is larger than allowed.
    BodyTooLarge,
    /// 414: the path and query are longer than allowed.
    UriTooLong,
    /// 431: the headers are larger than allowed.
    HeadersTooLarge,
    /// 415: not JSON.
    UnsupportedMediaType,
    /// 422: fields with wrong values.
    Validation,
    /// 422: the key was used for another request.
    IdempotencyKeyReused,
    /// 422: the account holds another currency.
    CurrencyMismatch,
    /// 422: the debit would go below the account's limit.
    LimitExceeded,
    /// 422: the balance would leave the range that the ledger keeps.
    BalanceOutOfRange,
    /// 422: a reversal cannot be reversed.
    NotReversible,
    /// 429: this client is over its rate.
    TooManyRequests,
    /// 503: not now; try again with the same key.
    Unavailable,
    /// 500: a bug.
    Internal,
}

impl ProblemKind {
    /// Every kind there is.
    pub const ALL: [Self; 17] = [
        Self::Malformed,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::HeadersTooLarge,
        Self::UnsupportedMediaType,
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

    /// The last part of its type.
    pub fn name(self) -> &'static str {
        self.facts().1
    }

    /// The same for every problem of this kind.
    pub fn title(self) -> &'static str {
        self.facts().2
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        self.facts().0
    }

    /// The status code, the name in the type, and the title.
    fn facts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "malformed-request", "The request is malformed"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "There is nothing here"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here")
            }
            Self::RequestTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "request-timeout", "The request did not arrive in time")
            }
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::UriTooLong => (StatusCode::URI_TOO_LONG, "uri-too-long", "The address is too long"),
            Self::HeadersTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers-too-large",
                "The headers are too large",
            ),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body must be JSON")
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
                (StatusCode::UNPROCESSABLE_ENTITY, "limit-exceeded", "The account's limit does not allow it")
            }
            Self::BalanceOutOfRange => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "balance-out-of-range",
                "The balance would leave the range that the ledger keeps",
            ),
            Self::NotReversible => {
                (StatusCode::UNPROCESSABLE_ENTITY, "not-reversible", "The transaction cannot be reversed")
            }
            Self::TooManyRequests => {
                (StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests from this client")
            }
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The ledger cannot do this right now")
            }
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong inside"),
        }
    }
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Decides status, type and title.
    pub kind: ProblemKind,
    /// What happened this time, for a person.
    pub detail: String,
    /// For validation: every field that is wrong.
    pub errors: Vec<FieldProblem>,
    /// Extra headers: `Allow`, `Retry-After`.
    header: Option<(header::HeaderName, String)>,
}

/// RFC 9457. What each type means and what to do about it is in docs/problems.md.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemOut<'a> {
    /// Stable: programs decide by it
    #[serde(rename = "type")]
    problem_type: String,
    /// The same for every problem of a type
    title: &'static str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What happened this time, for a person
    detail: &'a str,
    /// The path that was asked for
    instance: &'a str,
    /// The fields that are wrong, where it is about fields
    #[serde(skip_serializing_if = "<[FieldProblem]>::is_empty")]
    #[schema(value_type = Vec<FieldProblem>, required = false)]
    errors: &'a [FieldProblem],
}

/// A client that is told to come back is told when.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Problem {
    /// A problem with its text.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let retry = (kind == ProblemKind::Unavailable)
            .then(|| (header::RETRY_AFTER, RETRY_AFTER.as_secs().to_string()));
        Self { kind, detail: detail.into(), errors: Vec::new(), header: retry }
    }

    /// 422 with all fields that are wrong.
    pub fn validation(errors: Vec<FieldProblem>) -> Self {
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        Self {
            errors: errors.clone(),
            ..Self::new(ProblemKind::Validation, format!("not valid: {}", fields.join(", ")))
        }
    }

    /// The same problem with the fields that are to blame.
    #[must_use]
    pub fn with_errors(self, errors: Vec<FieldProblem>) -> Self {
        Self { errors, ..self }
    }

    /// Our own rows always print; if one does not, that is a bug and no client's fault.
    pub fn not_printable(error: &serde_json::Error) -> Self {
        tracing::error!(%error, "a row cannot be printed");
        Self::new(ProblemKind::Internal, "this is a bug; the server's log tells more")
    }

    /// For an error that something below us answered; None if it is no error, or none that we know.
    pub fn from_status(status: StatusCode) -> Option<Self> {
        match status {
            StatusCode::NOT_FOUND => Some(Self::new(ProblemKind::NotFound, "there is no such route")),
            StatusCode::BAD_REQUEST => Some(Self::new(ProblemKind::Malformed, "the request cannot be read")),
            status if status.is_server_error() => {
                Some(Self::new(ProblemKind::Internal, "this is a bug; the server's log tells more"))
            }
            _ => None,
        }
    }

    /// 429 with the time to wait.
    pub fn too_many_requests(seconds: u64) -> Self {
        Self {
            header: Some((header::RETRY_AFTER, seconds.to_string())),
            ..Self::new(ProblemKind::TooManyRequests, format!("come back in {seconds} s"))
        }
    }

    /// 405 with the methods that there are.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self {
            header: Some((header::ALLOW, allow.into())),
            ..Self::new(ProblemKind::MethodNotAllowed, format!("allowed here: {allow}"))
        }
    }

    /// What a decision that created nothing is answered with; None for those that have a row.
    pub fn from_decision(decision: &Decision) -> Option<Self> {
        match decision {
            Decision::Create(_) | Decision::Replay(_) => None,
            Decision::Mismatch { field } => Some(Self {
                errors: vec![FieldProblem {
                    field: (*field).into(),
                    message: "differs from the request that this key was first used for".into(),
                }],
                ..Self::new(
                    ProblemKind::IdempotencyKeyReused,
                    format!("the first request had another {field}"),
                )
            }),
            Decision::Refused(refusal) => Some(Self::from_refusal(refusal)),
        }
    }

    fn from_refusal(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::CurrencyMismatch { account_currency } => {
                Self::new(ProblemKind::CurrencyMismatch, format!("the account holds {account_currency}"))
            }
            Refusal::LimitExceeded { balance, min_balance, currency } => Self::new(
                ProblemKind::LimitExceeded,
                format!(
                    "the balance is {} {currency} and must not go below {}",
                    format_minor(*balance, *currency),
                    format_minor(*min_balance, *currency)
                ),
            ),
            Refusal::BalanceOutOfRange => {
                Self::new(ProblemKind::BalanceOutOfRange, "the balance would need more than 18 digits")
            }
            Refusal::BeforeLastTransaction { last_created_at } => Self::new(
                ProblemKind::Validation,
                format!("the account's last transaction is of {last_created_at}, later than this one"),
            ),
        }
    }

    /// The JSON of this problem; `instance` is the path that was asked for.
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

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.kind.facts().0
    }

    /// The answer to a request for `instance`.
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

/// The middleware that knows the path gives `instance` its value; see `serve::observe`.
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
            tracing::warn!(%error, "the database does not answer");
            return Self::new(ProblemKind::Unavailable, "the database does not answer; try again");
        }
        tracing::error!(%error, "the database refused a statement");
        Self::new(ProblemKind::Internal, "this is a bug; the server's log tells more")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail when a kind was planted that the page does not know, and when a status in it was changed.
    #[test]
    fn every_problem_is_documented_with_its_status() {
        let page = include_str!("../../docs/problems.md");
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        for kind in ProblemKind::ALL {
            let (status, name, _) = kind.facts();
            let row = format!("| `{name}` | {} |", status.as_u16());
            assert!(page.contains(&row), "docs/problems.md has no row {row}");
        }
        assert_eq!(rows, ProblemKind::ALL.len(), "a row for each, and no other");
    }
}
