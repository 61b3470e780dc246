//! The OpenAPI 3.1 description.
//!
//! Each operation is described by a function here that nobody calls, named as its `operationId`, with what it answers
//! when all is well; [`shapes`] are what `input` reads and `output` writes, and [`problems`] adds what every operation
//! may answer beside. A test calls every operation that is described.

mod problems;
mod shapes;

use utoipa::OpenApi;

use self::shapes::{
    Account, AccountTerms, AssessedTransaction, AssessmentPage, Balance, BatchResults, Direction, NewBatch,
    NewTransaction, RiskLevel, RiskState, Transaction, TransactionPage,
};

/// The whole description.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "ledger",
        description = "Money movements, kept exactly once. Every error is an RFC 9457 problem; unknown fields and query parameters are refused. Malformed requests are 400, well-formed but wrong ones 422.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        create_transaction,
        list_transactions,
        create_batch,
        find_transaction,
        reverse_transaction,
        find_account,
        put_account,
        find_balance,
        list_assessments
    ),
    // Only a parameter has it, and those are not looked through.
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

/// Post a transaction
///
/// Idempotent for ever: the same request under the same key answers 200 with the first answer's body, to the byte.
#[utoipa::path(
    post, path = "/transactions", tag = "transactions",
    params(("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters, bare or in double quotes; unique per account",
            min_length = 1, max_length = 257, pattern = r#"^([!#-~][!-~]{0,254}|"[!#-~]{1,255}")$"#)),
    request_body(content = NewTransaction, content_type = "application/json"),
    responses(
        (status = 201, description = "Posted, and on disk", body = Transaction, headers(("Location" = String, description = "The transaction's address"))),
        (status = 200, description = "Posted before; this is the first answer", body = Transaction, headers(("Idempotent-Replayed" = String, description = "`true`")))
    )
)]
#[expect(dead_code, reason = "described, never called")]
fn create_transaction() {}

/// List transactions, newest first
#[utoipa::path(
    get, path = "/transactions", tag = "transactions",
    params(
        ("account_id" = Option<String>, Query, description = "Of one account only", pattern = r"^[A-Za-z0-9._:-]{1,64}$"),
        ("from" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Created at or after"),
        ("to" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Created before; not before `from`"),
        ("direction" = Option<Direction>, Query, description = "Credits or debits only"),
        ("min_amount" = Option<String>, Query, max_length = 24, pattern = r"^[0-9]+(\.[0-9]+)?$",
         description = "In the currency's own unit"),
        ("max_amount" = Option<String>, Query, max_length = 24, pattern = r"^[0-9]+(\.[0-9]+)?$",
         description = "In the currency's own unit; not less than `min_amount`"),
        ("risk_level" = Option<RiskState>, Query, description = "`pending` for what is not assessed yet"),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "50 if not given"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, under the same filters", max_length = 128)
    ),
    responses((status = 200, description = "A page", body = TransactionPage))
)]
#[expect(dead_code, reason = "described, never called")]
fn list_transactions() {}

/// Post up to 1,000 transactions
///
/// Each item succeeds or fails alone; the results are in order. The answer is 200 even if every item was refused.
#[utoipa::path(
    post, path = "/transactions/batch", tag = "transactions",
    request_body(content = NewBatch, content_type = "application/json", example = json!({"transactions": [{"idempotency_key": "order-77", "account_id": "acct-42", "direction": "debit", "amount": "125.50", "currency": "EUR"}]})),
    responses(
        (status = 200, description = "One result for each item", body = BatchResults)
    )
)]
#[expect(dead_code, reason = "described, never called")]
fn create_batch() {}

/// Read a transaction and its assessment
#[utoipa::path(
    get, path = "/transactions/{id}", tag = "transactions",
    params(("id" = uuid::Uuid, Path, description = "The transaction's id, in small letters",
            pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")),
    responses((status = 200, description = "The transaction", body = AssessedTransaction))
)]
#[expect(dead_code, reason = "described, never called")]
fn find_transaction() {}

/// Reverse a transaction
///
/// Once only, and idempotent by nature: asking again answers 200 with the same reversal. A reversal is not reversed.
#[utoipa::path(
    post, path = "/transactions/{id}/reversal", tag = "transactions",
    params(("id" = uuid::Uuid, Path, description = "The transaction's id, in small letters",
            pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")),
    responses(
        (status = 201, description = "Reversed", body = Transaction, headers(("Location" = String, description = "The reversal's address"))),
        (status = 200, description = "Reversed before; this is the reversal", body = Transaction, headers(("Idempotent-Replayed" = String, description = "`true`")))
    )
)]
#[expect(dead_code, reason = "described, never called")]
fn reverse_transaction() {}

/// Read an account
#[utoipa::path(
    get, path = "/accounts/{id}", tag = "accounts", params(("id" = String, Path, description = "The account's id", example = "acct-42", pattern = r"^[A-Za-z0-9._:-]{1,64}$")),
    responses((status = 200, description = "The account", body = Account))
)]
#[expect(dead_code, reason = "described, never called")]
fn find_account() {}

/// Open an account, or change its limit
///
/// Idempotent by nature. The body is the whole of what can be set; the currency never changes.
#[utoipa::path(
    put, path = "/accounts/{id}", tag = "accounts", params(("id" = String, Path, description = "The account's id", example = "acct-42", pattern = r"^[A-Za-z0-9._:-]{1,64}$")),
    request_body(content = AccountTerms, content_type = "application/json"),
    responses(
        (status = 200, description = "Set", body = Account), (status = 201, description = "Opened", body = Account)
    )
)]
#[expect(dead_code, reason = "described, never called")]
fn put_account() {}

/// Read a balance, now or in the past
#[utoipa::path(
    get, path = "/accounts/{id}/balance", tag = "accounts",
    params(
        ("id" = String, Path, description = "The account's id", example = "acct-42", pattern = r"^[A-Za-z0-9._:-]{1,64}$"),
        ("at" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "The moment; now if not given")
    ),
    responses((status = 200, description = "The balance", body = Balance))
)]
#[expect(dead_code, reason = "described, never called")]
fn find_balance() {}

/// List risk assessments, newest transaction first
#[utoipa::path(
    get, path = "/risk-assessments", tag = "risk",
    params(
        ("account_id" = Option<String>, Query, description = "Of one account only", pattern = r"^[A-Za-z0-9._:-]{1,64}$"),
        ("from" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Of transactions created at or after"),
        ("to" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Of transactions created before; not before `from`"),
        ("level" = Option<RiskLevel>, Query, description = "Of that level only"),
        ("rule" = Option<String>, Query, min_length = 1, max_length = 128, description = "A live rule that fired"),
        ("ruleset" = Option<String>, Query, min_length = 1, max_length = 128, description = "Content hash of the rules"),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "50 if not given"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, under the same filters", max_length = 128)
    ),
    responses((status = 200, description = "A page", body = AssessmentPage))
)]
#[expect(dead_code, reason = "described, never called")]
fn list_assessments() {}
