//! `POST /transactions/{id}/reversal`: posts the opposite of a transaction.
//!
//! A transaction has at most one reversal, so the request needs no idempotency key: a repeated request gets the same
//! reversal. A reversal cannot be reversed.
//!
//! The request has no content, but it must be declared as JSON: a form of a foreign web page cannot do that.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};

use super::{
    body, input,
    observe::trace_context,
    output::TransactionOut,
    problem::{Problem, ProblemKind},
    query::Parameters,
    state::ApiState,
    transactions::{answer, find_row, path_id},
};
use crate::{
    domain::{IdempotencyKey, Posting, Transaction},
    posting::Request,
};

/// Reverse a transaction
///
/// A transaction has at most one reversal, so a repeated request is answered 200 with the same reversal. A reversal cannot
/// be reversed. The request must have the content type `application/json`; its body is an empty object, or empty.
#[utoipa::path(
    post, path = "/transactions/{id}/reversal", tag = "transactions",
    params(("id" = uuid::Uuid, Path, description = "The transaction's id, in lower case",
            pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")),
    request_body(content = input::ReversalIn, content_type = "application/json"),
    responses(
        (status = 201, description = "Reversed", body = TransactionOut, headers(("Location" = String, description = "The path of the reversal"))),
        (status = 200, description = "Reversed before; the body is that reversal", body = TransactionOut, headers(("Idempotent-Replayed" = String, description = "`true`")))
    )
)]
pub async fn reverse_transaction(
    state: web::Data<ApiState>,
    request: HttpRequest,
    payload: web::Payload,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.finish()?;
    input::empty(&body::json(&request, payload, &state).await?)?;
    let (original, _) = find_row(&state, path_id(&path)?).await?;
    if original.posting.reverses.is_some() {
        return Err(Problem::new(
            ProblemKind::NotReversible,
            "the transaction is itself a reversal; post a new transaction instead",
        ));
    }
    let posting = Arc::new(opposite(&original));
    answer(&state.post(Request { posting, traceparent: trace_context(&request) }).await?)
}

/// Returns the reversal of a transaction. Its idempotency key is derived from the transaction, so there can be only one.
fn opposite(original: &Transaction) -> Posting {
    let posting = &original.posting;
    Posting {
        account_id: posting.account_id.clone(),
        idempotency_key: IdempotencyKey::of_reversal(original.id),
        direction: posting.direction.opposite(),
        amount: posting.amount,
        currency: posting.currency,
        counterparty: posting.counterparty.clone(),
        description: None,
        metadata: None,
        reverses: Some(original.id),
        created_at: None,
    }
}
