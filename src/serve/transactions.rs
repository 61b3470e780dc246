//! `POST /transactions`, `GET /transactions/{id}`, `GET /transactions`.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use uuid::Uuid;

use super::{
    body, cursor, input,
    observe::trace_context,
    output,
    problem::{Kind, Problem},
    query::{self, Parameters},
    state::ApiState,
};
use crate::{
    domain::{Decision, Transaction},
    posting::Request,
    repository::{
        PageRequest,
        assessments::{self, StoredAssessment},
        transactions::{self, TransactionFilter},
    },
};

/// Set on an answer that was given before.
const REPLAYED: &str = "Idempotent-Replayed";

/// Posts a transaction: 201 with the new row, 200 with the first answer's body if the key was used for it before.
pub async fn create(
    state: web::Data<ApiState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.end()?;
    let body = body::json(&request, payload, &state).await?;
    let idempotency_key = input::idempotency_key(request.headers())?;
    let posting = input::posting(&body, idempotency_key)?;
    let decision = state.post(Request { posting, traceparent: trace_context(&request) }).await?;
    answer(&decision)
}

/// The answer to a posting: 201 with the new row, 200 with the old one, or the problem.
pub fn answer(decision: &Decision) -> Result<HttpResponse, Problem> {
    match decision {
        Decision::Create(row) => Ok(HttpResponse::Created()
            .insert_header((header::LOCATION, format!("/transactions/{}", row.id)))
            .content_type("application/json")
            .body(output::transaction(row).map_err(unprintable)?)),
        Decision::Replay(row) => Ok(HttpResponse::Ok()
            .insert_header((REPLAYED, "true"))
            .content_type("application/json")
            .body(output::transaction(row).map_err(unprintable)?)),
        refused => Err(Problem::from_decision(refused)
            .unwrap_or_else(|| Problem::new(Kind::Internal, "a decision without an answer"))),
    }
}

/// One transaction with its assessment.
pub async fn find(
    state: web::Data<ApiState>,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.end()?;
    let (row, risk) = find_row(&state, path_id(&path)?).await?;
    let body = output::transaction_with_risk(&row, risk.as_ref()).map_err(unprintable)?;
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
}

fn missing() -> Problem {
    Problem::new(Kind::NotFound, "no transaction has this id")
}

/// The id in a path, in its one spelling: others would give one thing several addresses.
pub fn path_id(path: &str) -> Result<Uuid, Problem> {
    path.parse::<Uuid>().ok().filter(|id| id.hyphenated().to_string() == path).ok_or_else(missing)
}

/// A row and its assessment, or 404.
pub async fn find_row(
    state: &ApiState,
    id: Uuid,
) -> Result<(Transaction, Option<StoredAssessment>), Problem> {
    let found = state
        .read(move |mut connection| async move {
            let Some(row) = transactions::find(&mut connection, id).await? else { return Ok(None) };
            let risk = assessments::find(&mut connection, &row.posting.account_id, row.account_seq).await?;
            Ok(Some((row, risk)))
        })
        .await?;
    found.ok_or_else(missing)
}

/// A page of history, newest first.
pub async fn list(state: web::Data<ApiState>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::parse(request.query_string())?;
    let mut filter = TransactionFilter {
        page: parameters.take_page(),
        direction: parameters.take("direction", query::direction),
        min_amount: parameters.take("min_amount", query::decimal),
        max_amount: parameters.take("max_amount", query::decimal),
        risk_level: parameters.take("risk_level", query::risk_level),
    };
    parameters.in_order(("min_amount", &filter.min_amount), ("max_amount", &filter.max_amount));
    let given = parameters.take("cursor", query::short_text);
    parameters.end()?;
    let filters = as_text(&filter);
    if let Some(given) = given {
        filter.page.before = Some(cursor::decode(&filters, &given, &filter.page)?);
    }
    let page = state
        .read(move |mut connection| async move { transactions::page(&mut connection, &filter).await })
        .await?;
    let next = page.next.map(|next| cursor::encode(&filters, next));
    let body = output::transactions(&page.rows, next.as_deref()).map_err(unprintable)?;
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
}

/// What a cursor is bound to; see [`cursor`] for why the text never changes.
fn as_text(filter: &TransactionFilter) -> String {
    let TransactionFilter { page, direction, min_amount, max_amount, risk_level } = filter;
    let PageRequest { account_id, from, to, limit, .. } = page;
    format!(
        "HistoryFilter {{ account_id: {account_id:?}, from: {from:?}, to: {to:?}, direction: {direction:?}, \
         min_amount: {min_amount:?}, max_amount: {max_amount:?}, risk_level: {risk_level:?}, limit: {limit}, \
         before_seq: None, before_id: None }}"
    )
}

/// Our own rows always print; if one does not, that is a bug and no client's fault.
pub fn unprintable(error: serde_json::Error) -> Problem {
    tracing::error!(%error, "a row cannot be printed");
    Problem::new(Kind::Internal, "this is a bug; the server's log tells more")
}
