//! The OpenAPI 3.1 description.
//!
//! Each handler describes its operation, and each request and response type its shape; [`problems`] adds what every
//! operation may answer beside. A test calls every operation that is described.

mod problems;

use utoipa::OpenApi;

use super::{accounts, assessments, batch, reversal, transactions};
use crate::domain::RiskState;

/// The whole description.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "ledger",
        description = "Money movements, kept exactly once. Every error is an RFC 9457 problem; unknown fields and query parameters are refused. Malformed requests are 400, well-formed but wrong ones 422.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        transactions::create_transaction,
        transactions::list_transactions,
        batch::create_batch,
        transactions::find_transaction,
        reversal::reverse_transaction,
        accounts::find_account,
        accounts::put_account,
        accounts::find_balance,
        assessments::list_assessments
    ),
    // utoipa does not collect the schemas of parameters.
    components(schemas(RiskState)),
    tags(
        (name = "transactions", description = "Post and read money movements"),
        (name = "accounts", description = "Balances and limits"),
        (name = "risk", description = "What the rules found")
    )
)]
struct Description;

/// The description as JSON, as `GET /openapi.json` and `ledger openapi` give it.
pub fn description() -> Result<serde_json::Value, serde_json::Error> {
    let mut description = serde_json::to_value(Description::openapi())?;
    problems::complete(&mut description);
    Ok(description)
}
