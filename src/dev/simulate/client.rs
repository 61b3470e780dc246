//! Sends one request until it is answered, and compares the answer with the request.
//!
//! After 503, 429, 408 and a lost connection the request is retried with the same key, as a client of the API should. Any
//! other response is an answer. The answer to a retried request may be a replay, because the server may have carried out
//! an earlier attempt.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use reqwest::{StatusCode, header};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    counts::{Counts, Failure},
    traffic::{Repeat, Request},
};
use crate::{
    domain::parse_minor,
    runtime::{Backoff, Stop},
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest wait for requests in flight after a stop was requested.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// No correct answer is longer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request without an answer is given up after this time.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_WAIT_MIN: Duration = Duration::from_millis(20);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(1);

/// A server under test.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    transactions_url: String,
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    replayed: bool,
    location: Option<String>,
    body: Bytes,
    attempts: u32,
    at: Instant,
}

/// The ledger's answer to a new transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) id: Uuid,
    pub(super) account_seq: i64,
    /// In minor units.
    pub(super) balance_after: i64,
    /// The moment of the first answer, which does not include the time of a repetition.
    pub(super) answered_at: Instant,
}

/// The outcome of a request, and of its repetition if it was repeated.
pub(super) struct Settled {
    pub(super) first: Result<Acknowledged, Failure>,
    pub(super) repeat: Option<Result<(), Failure>>,
}

impl Client {
    pub(super) fn new(url: &str, connections: usize) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/');
        let http = reqwest::Client::builder()
            .pool_max_idle_per_host(connections)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .tcp_nodelay(true)
            .no_proxy()
            .build()
            .context("cannot build the HTTP client")?;
        Ok(Self { http, transactions_url: format!("{url}/transactions") })
    }

    /// Checks with one request that a ledger answers at the URL.
    pub(super) async fn check_reachable(&self) -> anyhow::Result<()> {
        let probe = format!("{}/{}", self.transactions_url, Uuid::nil());
        let answer = self.http.get(&probe).send().await;
        let base = self.transactions_url.trim_end_matches("/transactions");
        let status = answer
            .map_err(|error| anyhow::anyhow!("{}", innermost(&error)))
            .with_context(|| {
                format!("cannot reach {base}; is `ledger serve` or `ledger dev` running there?")
            })?
            .status();
        anyhow::ensure!(
            status == StatusCode::NOT_FOUND || status == StatusCode::SERVICE_UNAVAILABLE,
            "{base} answers {status} where a ledger answers 404; is it one?"
        );
        Ok(())
    }

    /// Posts the request, repeats it if it is to be repeated, and checks all answers.
    pub(super) async fn settle(&self, request: &Request, counts: &Counts, stop: &Stop) -> Settled {
        let (first, second) = match self.answers(request, counts, stop).await {
            Ok(answers) => answers,
            Err(failure) => return Settled { first: Err(failure), repeat: None },
        };
        let repeat = second.map(|second| check_replayed(&first, &second?).map_err(Failure::Wrong));
        Settled { first: check_created(request, &first).map_err(Failure::Wrong), repeat }
    }

    /// Returns the answer that created the transaction, and the other answer if the request is repeated.
    async fn answers(
        &self,
        request: &Request,
        counts: &Counts,
        stop: &Stop,
    ) -> Result<(Answer, Option<Result<Answer, Failure>>), Failure> {
        let body: Bytes = request.body().map_err(wrong)?.into();
        let first = self.post(request, body.clone(), counts, stop);
        match request.repeat {
            Repeat::Never => Ok((first.await?, None)),
            Repeat::Afterwards => {
                let first = first.await?;
                let other = request.body_written_differently().map_err(wrong)?;
                Ok((first, Some(self.post(request, other.into(), counts, stop).await)))
            }
            Repeat::Together => match tokio::join!(first, self.post(request, body, counts, stop)) {
                (Ok(mut one), Ok(mut other)) => {
                    // Either answer may replay a lost attempt of the other request.
                    let attempts = one.attempts.max(other.attempts);
                    (one.attempts, other.attempts) = (attempts, attempts);
                    // The request that was handled second is the replay.
                    Ok(if one.replayed { (other, Some(Ok(one))) } else { (one, Some(Ok(other))) })
                }
                (Ok(mut answered), Err(lost)) | (Err(lost), Ok(mut answered)) => {
                    // The answer may replay the request whose own answer is missing.
                    answered.attempts += 1;
                    Ok((answered, Some(Err(lost))))
                }
                (Err(lost), Err(_)) => Err(lost),
            },
        }
    }

    async fn post(
        &self,
        request: &Request,
        body: Bytes,
        counts: &Counts,
        stop: &Stop,
    ) -> Result<Answer, Failure> {
        let deadline = Instant::now() + RETRY_TIMEOUT;
        let mut backoff = Backoff::new(RETRY_WAIT_MIN, RETRY_WAIT_MAX);
        let mut attempts = 1;
        loop {
            counts.sent.increment();
            let answer = tokio::select! {
                biased;
                answer = self.post_once(&request.key, body.clone(), attempts) => answer,
                () = stop_timed_out(stop) => {
                    return Err(Failure::Unanswered(format!("{}: no answer before the stop", request.key)));
                }
            };
            let problem = match answer {
                Ok(answer) if !may_be_retried(answer.status) => return Ok(answer),
                Ok(answer) => answer.status.to_string(),
                Err(error) => innermost(&error),
            };
            if Instant::now() >= deadline || stop.is_requested() {
                return Err(Failure::Unanswered(format!(
                    "{} after {attempts} attempts: {problem}",
                    request.key
                )));
            }
            counts.retried.increment();
            attempts += 1;
            backoff.wait(stop).await;
        }
    }

    async fn post_once(&self, key: &str, body: Bytes, attempts: u32) -> Result<Answer, reqwest::Error> {
        let mut response = self
            .http
            .post(&self.transactions_url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", key)
            .body(body)
            .send()
            .await?;
        let text = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let (status, location) = (response.status(), text("location"));
        let replayed = text("idempotent-replayed").as_deref() == Some("true");
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await? {
            body.extend_from_slice(&part);
            if body.len() > ANSWER_BYTES_MAX {
                break;
            }
        }
        Ok(Answer { status, replayed, location, body: body.into(), attempts, at: Instant::now() })
    }
}

async fn stop_timed_out(stop: &Stop) {
    stop.requested().await;
    tokio::time::sleep(STOP_TIMEOUT).await;
}

fn may_be_retried(status: StatusCode) -> bool {
    [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT]
        .contains(&status)
}

fn wrong(error: anyhow::Error) -> Failure {
    Failure::Wrong(error.to_string())
}

/// Returns the text of the innermost error. The outer texts of the HTTP client's errors only repeat the URL.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// Checks the answer to a new request: 201, or the replay of a lost attempt, with the transaction that was requested.
fn check_created(request: &Request, answer: &Answer) -> Result<Acknowledged, String> {
    let text = String::from_utf8_lossy(&answer.body);
    let wrong = |what: &str| format!("{}: {what}: {} {text}", request.key, answer.status);
    let new = answer.status == StatusCode::CREATED && !answer.replayed;
    let found_again = answer.status == StatusCode::OK && answer.replayed && answer.attempts > 1;
    if !new && !found_again {
        return Err(wrong("the answer to a new request is neither 201 nor the replay of a lost attempt"));
    }
    let body: Value = serde_json::from_slice(&answer.body).map_err(|_| wrong("the body is not JSON"))?;
    if let Some(field) = differing_field(request, &body) {
        return Err(wrong(&format!("{field} is not what was sent")));
    }
    let id = text_field(&body, "id").and_then(|id| Uuid::parse_str(id).ok()).ok_or_else(|| wrong("no id"))?;
    if new
        && answer
            .location
            .as_deref()
            .is_none_or(|location| !location.ends_with(&format!("/transactions/{id}")))
    {
        return Err(wrong("Location is not the URL of the transaction"));
    }
    let created_at = text_field(&body, "created_at").map(chrono::DateTime::parse_from_rfc3339);
    if !matches!(created_at, Some(Ok(_))) {
        return Err(wrong("created_at is not a timestamp"));
    }
    let account_seq = body.get("account_seq").and_then(Value::as_i64).filter(|seq| *seq > 0);
    let balance_after = text_field(&body, "balance_after").map(|text| parse_minor(text, request.currency));
    match (account_seq, balance_after) {
        (Some(account_seq), Some(Ok(balance_after))) => {
            Ok(Acknowledged { id, account_seq, balance_after, answered_at: answer.at })
        }
        _ => Err(wrong("account_seq or balance_after is missing")),
    }
}

fn text_field<'a>(body: &'a Value, name: &str) -> Option<&'a str> {
    body.get(name)?.as_str()
}

fn differing_field(request: &Request, body: &Value) -> Option<&'static str> {
    let text = |name| text_field(body, name);
    let metadata = request.metadata.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
    [
        ("account_id", text("account_id") == Some(&request.account_id)),
        ("direction", text("direction") == Some(request.direction.as_str())),
        ("amount", text("amount") == Some(&request.amount())),
        ("currency", text("currency") == Some(request.currency.code())),
        ("counterparty", text("counterparty") == request.counterparty.as_deref()),
        ("description", text("description") == request.description.as_deref()),
        ("metadata", body.get("metadata") == Some(&Value::Object(metadata.collect()))),
    ]
    .into_iter()
    .find_map(|(name, same)| (!same).then_some(name))
}

/// Checks that an answer has status 200, is marked as a replay, and has the same bytes as the first answer.
fn check_replayed(first: &Answer, second: &Answer) -> Result<(), String> {
    if second.status == StatusCode::OK && second.replayed && second.body == first.body {
        return Ok(());
    }
    let text = |answer: &Answer| String::from_utf8_lossy(&answer.body).into_owned();
    Err(format!(
        "a repeated request was answered {}{} {}, after {} {}",
        second.status,
        if second.replayed { "" } else { " without Idempotent-Replayed" },
        text(second),
        first.status,
        text(first)
    ))
}
