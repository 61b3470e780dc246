//! `POST /transactions/{id}/reversal`: a new, opposite transaction that names the first. Idempotent by nature, so it
//! needs no key: there is one reversal per transaction, and asking again answers with it. A reversal is not reversed.

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
/// Once only, and idempotent by nature: asking again answers 200 with the same reversal. A reversal is not reversed.
#[utoipa::path(
    post, path = "/transactions/{id}/reversal", tag = "transactions",
    params(("id" = uuid::Uuid, Path, description = "The transaction's id, in small letters",
            pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")),
    responses(
        (status = 201, description = "Reversed", body = TransactionOut, headers(("Location" = String, description = "The reversal's address"))),
        (status = 200, description = "Reversed before; this is the reversal", body = TransactionOut, headers(("Idempotent-Replayed" = String, description = "`true`")))
    )
)]
pub async fn reverse_transaction(
    state: web::Data<ApiState>,
    request: HttpRequest,
    payload: web::Payload,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    Parameters::parse(request.query_string())?.end()?;
    input::nothing(&body::json_or_none(&request, payload, &state).await?)?;
    let (original, _) = find_row(&state, path_id(&path)?).await?;
    if original.posting.reverses.is_some() {
        return Err(Problem::new(
            ProblemKind::NotReversible,
            "it is itself a reversal; post a new transaction instead",
        ));
    }
    let posting = Arc::new(opposite(&original));
    answer(&state.post(Request { posting, traceparent: trace_context(&request) }).await?)
}

/// The key is made from the reversed row, so the scope of "once" is the row itself.
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
