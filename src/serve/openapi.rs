//! The OpenAPI 3.1 description.
//!
//! Each handler describes its operation, and each request and response type its schema. [`problems`] adds the errors
//! that operations share. `every_described_operation_exists_and_answers_as_described` in `tests/openapi.rs` calls all of
//! them.

mod problems;

use utoipa::OpenApi;

use super::{accounts, assessments, batch, output::Included, reversal, transactions};
use crate::domain::RiskState;

/// Collects the operations and schemas.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "ledger",
        description = "Transactions of accounts, each recorded exactly once. Every error is an RFC 9457 problem. Unknown fields and query parameters are refused. Malformed requests get 400; well-formed requests with wrong values get 422.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        transactions::create_transaction,
        transactions::list_transactions,
        batch::create_batch,
        transactions::find_transaction,
        reversal::reverse_transaction,
        accounts::list_accounts,
        accounts::find_account,
        accounts::put_account,
        accounts::find_balance,
        assessments::list_assessments
    ),
    // utoipa does not collect the schemas of parameters.
    components(schemas(RiskState, Included)),
    tags(
        (name = "transactions", description = "Post and read transactions"),
        (name = "accounts", description = "Balances and limits"),
        (name = "risk", description = "Assessments by the risk rules")
    )
)]
struct Description;

/// Returns the description as JSON, for `GET /openapi.json` and `ledger openapi`.
pub fn description() -> Result<serde_json::Value, serde_json::Error> {
    let mut description = serde_json::to_value(Description::openapi())?;
    problems::complete(&mut description);
    Ok(description)
}
