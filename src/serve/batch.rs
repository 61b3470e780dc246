//! `POST /transactions/batch`: posts up to 1,000 items. Each succeeds or fails alone. The answer is 200 with one result for
//! each item, in order.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    body, input,
    observe::trace_context,
    output::{self, TransactionOut},
    problem::{INTERNAL_DETAIL, Problem, ProblemKind, ProblemOut},
    query::Parameters,
    state::ApiState,
};
use crate::{domain::Decision, posting::Request};

const INSTANCE: &str = "/transactions/batch";

/// The results of a batch.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchResults)]
pub struct BatchOut<'a> {
    /// One result for each item, in order.
    results: Vec<ResultOut<'a>>,
}

/// The result of an item: a transaction (201 if it is new, 200 if it is a replay) or a problem.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchResult)]
struct ResultOut<'a> {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    transaction: Option<TransactionOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    problem: Option<ProblemOut<'a>>,
}

/// Post up to 1,000 transactions
///
/// Each item succeeds or fails alone. The results have the order of the items. The answer is 200 even if every item was
/// refused.
#[utoipa::path(
    post, path = "/transactions/batch", tag = "transactions",
    request_body(content = input::BatchIn, content_type = "application/json", example = json!({"transactions": [{"idempotency_key": "order-77", "account_id": "acct-42", "direction": "debit", "amount": "125.50", "currency": "EUR"}]})),
    responses((status = 200, description = "One result for each item", body = BatchOut))
)]
pub async fn create_batch(
    state: web::Data<ApiState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.finish()?;
    let body = body::json_up_to(state.config.serve.batch_body_size_max, &request, payload, &state).await?;
    let traceparent = trace_context(&request);
    let items = input::batch(&body)?;
    let requests = items
        .iter()
        .flatten()
        .map(|posting| Request { posting: posting.clone(), traceparent: traceparent.clone() })
        .collect();
    let mut decisions = state.post_many(requests).await?.into_iter();
    let outcomes: Vec<Result<Decision, Problem>> = items
        .into_iter()
        .map(|item| item.and_then(|_| decisions.next().unwrap_or_else(|| Err(no_decision()))))
        .map(|outcome| match outcome {
            Ok(decision) => Problem::from_decision(&decision).map_or(Ok(decision), Err),
            Err(problem) => Err(problem),
        })
        .collect();
    let results = outcomes.iter().map(result_out).collect::<Result<_, _>>()?;
    output::json(HttpResponse::Ok(), &BatchOut { results })
}

fn no_decision() -> Problem {
    tracing::error!("an item of a batch got no decision");
    Problem::new(ProblemKind::Internal, INTERNAL_DETAIL)
}

fn result_out(outcome: &Result<Decision, Problem>) -> Result<ResultOut<'_>, Problem> {
    let (status, row) = match outcome {
        Ok(Decision::Create(row)) => (201, row),
        Ok(Decision::Replay(row)) => (200, row),
        Ok(_) => return Ok(ResultOut { status: 500, transaction: None, problem: None }),
        Err(problem) => {
            let status = problem.status().as_u16();
            return Ok(ResultOut { status, transaction: None, problem: Some(problem.to_json(INSTANCE)) });
        }
    };
    Ok(ResultOut { status, transaction: Some(TransactionOut::new(row)?), problem: None })
}
