//! The OpenAPI 3.1 description, and the page to try it, with assets that the binary carries.
//!
//! Each operation is described by a function here that nobody calls, named as its `operationId`; the shapes beside
//! them are what `input` reads and `output` writes. A test calls every operation that is described.

use std::collections::BTreeMap;

use actix_web::web;
use utoipa::{OpenApi, ToResponse, ToSchema};
use utoipa_swagger_ui::SwaggerUi;

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
    components(responses(
        Malformed,
        NotFound,
        RequestTimeout,
        BodyTooLarge,
        UnsupportedMediaType,
        Unprocessable,
        TooManyRequests,
        Unavailable
    )),
    tags(
        (name = "transactions", description = "Post and read money movements"),
        (name = "accounts", description = "Balances and limits"),
        (name = "risk", description = "What the rules found")
    )
)]
struct Description;

/// The description as JSON, as `GET /openapi.json` and `ledger openapi` give it.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// `GET /openapi.json` and `GET /docs/`.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::redirect("/docs", "/docs/"))
        .service(SwaggerUi::new("/docs/{_:.*}").url("/openapi.json", description()));
}

/// What a transaction is posted with.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct NewTransaction {
    /// The account; it opens with its first transaction.
    #[schema(pattern = r"^[A-Za-z0-9._:-]{1,64}$", example = "acct-42")]
    account_id: String,
    direction: Direction,
    /// A positive decimal string with no more decimals than the currency has. JSON numbers are refused: they are not exact.
    #[schema(pattern = r"^[0-9]{1,18}(\.[0-9]{1,4})?$", example = "125.50")]
    amount: String,
    /// ISO 4217; the account's first transaction fixes it.
    #[schema(pattern = "^[A-Z]{3}$", example = "EUR")]
    currency: String,
    /// Who is on the other side.
    #[schema(min_length = 1, max_length = 128, example = "shop-9")]
    counterparty: Option<String>,
    #[schema(min_length = 1, max_length = 500, example = "order 77")]
    description: Option<String>,
    /// A flat object of up to 20 strings, booleans and whole numbers, at most 2 KiB as JSON.
    metadata: Option<BTreeMap<String, MetadataValue>>,
}

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "a shape that is described, never made")]
enum Direction {
    Credit,
    Debit,
}

#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a shape that is described, never made")]
enum MetadataValue {
    Text(String),
    Flag(bool),
    Number(i64),
}

/// A row of the ledger. It never changes.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct Transaction {
    /// UUIDv7; sorts by time.
    id: uuid::Uuid,
    #[schema(example = "acct-42")]
    account_id: String,
    /// 1, 2, 3 … without gaps per account.
    #[schema(minimum = 1)]
    account_seq: i64,
    direction: Direction,
    #[schema(example = "125.50")]
    amount: String,
    #[schema(example = "EUR")]
    currency: String,
    /// The account's balance after this row.
    #[schema(example = "-125.50")]
    balance_after: String,
    #[schema(nullable = false)]
    counterparty: Option<String>,
    #[schema(nullable = false)]
    description: Option<String>,
    #[schema(nullable = false)]
    metadata: Option<BTreeMap<String, MetadataValue>>,
    /// The transaction that this one reverses.
    #[schema(nullable = false)]
    reverses: Option<uuid::Uuid>,
    created_at: chrono::DateTime<chrono::Utc>,
}

/// A transaction and what the rules made of it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct AssessedTransaction {
    #[schema(inline)]
    #[serde(flatten)]
    transaction: Transaction,
    risk: Risk,
}

/// `pending` until scored; then with everything else.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct Risk {
    /// `pending` or `assessed`.
    status: String,
    #[schema(nullable = false, minimum = 0, maximum = 100)]
    risk_score: Option<i16>,
    /// `low`, `medium` or `high`.
    #[schema(nullable = false)]
    risk_level: Option<String>,
    #[schema(nullable = false)]
    reasons: Option<Vec<RiskReason>>,
    /// Content hash of the rules.
    #[schema(nullable = false)]
    ruleset: Option<String>,
    #[schema(nullable = false)]
    assessed_at: Option<chrono::DateTime<chrono::Utc>>,
}

/// A rule that fired.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct RiskReason {
    rule: String,
    score: i16,
    reason: String,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct TransactionPage {
    items: Vec<Transaction>,
    /// Give it as `cursor` to go on; null on the last page.
    next_cursor: Option<String>,
}

/// A batch: each item has its own `idempotency_key` beside the fields of a transaction.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct NewBatch {
    /// 1 to 1,000 items; each is checked by itself, so a wrong one is refused alone.
    #[schema(min_items = 1, max_items = 1000)]
    transactions: Vec<serde_json::Value>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct BatchResults {
    /// One for each item, in order.
    results: Vec<BatchResult>,
}

/// What became of an item: a transaction (201 new, 200 replayed) or a problem.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct BatchResult {
    status: u16,
    #[schema(nullable = false)]
    transaction: Option<Transaction>,
    #[schema(nullable = false)]
    problem: Option<Problem>,
}

/// What can be set on an account.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct AccountTerms {
    #[schema(pattern = "^[A-Z]{3}$", example = "EUR")]
    currency: String,
    /// A debit that would leave less is refused; null or absent for no limit.
    #[schema(pattern = r"^-?[0-9]{1,18}(\.[0-9]{1,4})?$", example = "-100.00")]
    min_balance: Option<String>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct Account {
    account_id: String,
    currency: String,
    balance: String,
    /// 0 before the first transaction.
    account_seq: i64,
    min_balance: Option<String>,
    opened_at: chrono::DateTime<chrono::Utc>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct Balance {
    account_id: String,
    currency: String,
    #[schema(example = "-125.50")]
    balance: String,
    account_seq: i64,
    as_of: chrono::DateTime<chrono::Utc>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct AssessmentPage {
    items: Vec<Assessment>,
    next_cursor: Option<String>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct Assessment {
    transaction_id: uuid::Uuid,
    account_id: String,
    account_seq: i64,
    #[schema(minimum = 0, maximum = 100)]
    risk_score: i16,
    risk_level: String,
    reasons: Vec<RiskReason>,
    shadow_reasons: Vec<RiskReason>,
    ruleset: String,
    assessed_at: chrono::DateTime<chrono::Utc>,
}

/// RFC 9457. The types are listed in `docs/problems.md`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct Problem {
    #[serde(rename = "type")]
    #[schema(example = "urn:ledger:problem:validation")]
    problem_type: String,
    title: String,
    status: u16,
    detail: String,
    /// The path that was asked for.
    instance: String,
    /// The fields that are wrong, where it is about fields.
    #[schema(nullable = false)]
    errors: Option<Vec<FieldProblem>>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct FieldProblem {
    field: String,
    message: String,
}

macro_rules! problem_responses {
    ($($(#[$meta:meta])* $name:ident),+ $(,)?) => {
        $(
            $(#[$meta])*
            #[derive(ToResponse)]
            #[response(content_type = "application/problem+json")]
            #[expect(dead_code, reason = "a shape that is described, never made")]
            struct $name(Problem);
        )+
    };
}

problem_responses! {
    /// Not JSON, a missing or bad header, an unknown or bad query parameter.
    Malformed,
    /// There is no such thing.
    NotFound,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The body must be `application/json`.
    UnsupportedMediaType,
    /// Well-formed but wrong: fields, a reused key, another currency, a limit.
    Unprocessable,
    /// Too many requests from this client; `Retry-After` says when.
    TooManyRequests,
    /// Not now; try again with the same key after `Retry-After` seconds.
    Unavailable,
}

/// Post a transaction
///
/// Idempotent for ever: the same request under the same key answers 200 with the first answer's body, to the byte.
#[utoipa::path(
    post, path = "/transactions", tag = "transactions",
    params(("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters, bare or in double quotes; unique per account", min_length = 1, max_length = 255, pattern = "^[!#-~][!-~]{0,254}$")),
    request_body(content = NewTransaction, content_type = "application/json"),
    responses(
        (status = 201, description = "Posted, and on disk", body = Transaction, headers(("Location" = String, description = "The transaction's address"))),
        (status = 200, description = "Posted before; this is the first answer", body = Transaction, headers(("Idempotent-Replayed" = String, description = "`true`"))),
        (status = 400, response = Malformed), (status = 408, response = RequestTimeout), (status = 413, response = BodyTooLarge),
        (status = 415, response = UnsupportedMediaType), (status = 422, response = Unprocessable),
        (status = 429, response = TooManyRequests), (status = 503, response = Unavailable)
    )
)]
#[expect(dead_code, reason = "described, never called")]
fn create_transaction() {}

/// List transactions, newest first
#[utoipa::path(
    get, path = "/transactions", tag = "transactions",
    params(
        ("account_id" = Option<String>, Query, pattern = r"^[A-Za-z0-9._:-]{1,64}$"),
        ("from" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Created at or after"),
        ("to" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Created before"),
        ("direction" = Option<Direction>, Query),
        ("min_amount" = Option<String>, Query, pattern = r"^[0-9]{1,12}(\.[0-9]{1,4})?$", description = "In the currency's own unit"),
        ("max_amount" = Option<String>, Query, pattern = r"^[0-9]{1,12}(\.[0-9]{1,4})?$"),
        ("risk_level" = Option<String>, Query, pattern = "^(low|medium|high|pending)$"),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "50 if not given"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, under the same filters", max_length = 128)
    ),
    responses((status = 200, description = "A page", body = TransactionPage), (status = 400, response = Malformed), (status = 429, response = TooManyRequests), (status = 503, response = Unavailable))
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
        (status = 200, description = "One result for each item", body = BatchResults),
        (status = 400, response = Malformed), (status = 408, response = RequestTimeout), (status = 413, response = BodyTooLarge),
        (status = 415, response = UnsupportedMediaType), (status = 422, response = Unprocessable),
        (status = 429, response = TooManyRequests), (status = 503, response = Unavailable)
    )
)]
#[expect(dead_code, reason = "described, never called")]
fn create_batch() {}

/// Read a transaction and its assessment
#[utoipa::path(
    get, path = "/transactions/{id}", tag = "transactions", params(("id" = uuid::Uuid, Path)),
    responses((status = 200, description = "The transaction", body = AssessedTransaction), (status = 400, response = Malformed), (status = 404, response = NotFound), (status = 405, description = "`batch` is no id: it takes POST", body = Problem, content_type = "application/problem+json"), (status = 429, response = TooManyRequests), (status = 503, response = Unavailable))
)]
#[expect(dead_code, reason = "described, never called")]
fn find_transaction() {}

/// Reverse a transaction
///
/// Once only, and idempotent by nature: asking again answers 200 with the same reversal. A reversal is not reversed.
#[utoipa::path(
    post, path = "/transactions/{id}/reversal", tag = "transactions", params(("id" = uuid::Uuid, Path)),
    responses(
        (status = 201, description = "Reversed", body = Transaction, headers(("Location" = String, description = "The reversal's address"))),
        (status = 200, description = "Reversed before; this is the reversal", body = Transaction),
        (status = 400, response = Malformed), (status = 404, response = NotFound), (status = 408, response = RequestTimeout),
        (status = 413, response = BodyTooLarge), (status = 415, response = UnsupportedMediaType), (status = 422, response = Unprocessable),
        (status = 429, response = TooManyRequests), (status = 503, response = Unavailable)
    )
)]
#[expect(dead_code, reason = "described, never called")]
fn reverse_transaction() {}

/// Read an account
#[utoipa::path(
    get, path = "/accounts/{id}", tag = "accounts", params(("id" = String, Path, pattern = r"^[A-Za-z0-9._:-]{1,64}$")),
    responses((status = 200, description = "The account", body = Account), (status = 400, response = Malformed), (status = 404, response = NotFound), (status = 429, response = TooManyRequests), (status = 503, response = Unavailable))
)]
#[expect(dead_code, reason = "described, never called")]
fn find_account() {}

/// Open an account, or change its limit
///
/// Idempotent by nature. The body is the whole of what can be set; the currency never changes.
#[utoipa::path(
    put, path = "/accounts/{id}", tag = "accounts", params(("id" = String, Path, pattern = r"^[A-Za-z0-9._:-]{1,64}$")),
    request_body(content = AccountTerms, content_type = "application/json"),
    responses(
        (status = 200, description = "Set", body = Account), (status = 201, description = "Opened", body = Account),
        (status = 400, response = Malformed), (status = 408, response = RequestTimeout), (status = 413, response = BodyTooLarge),
        (status = 415, response = UnsupportedMediaType), (status = 422, response = Unprocessable),
        (status = 429, response = TooManyRequests), (status = 503, response = Unavailable)
    )
)]
#[expect(dead_code, reason = "described, never called")]
fn put_account() {}

/// Read a balance, now or in the past
#[utoipa::path(
    get, path = "/accounts/{id}/balance", tag = "accounts",
    params(
        ("id" = String, Path, pattern = r"^[A-Za-z0-9._:-]{1,64}$"),
        ("at" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "The moment; now if not given")
    ),
    responses((status = 200, description = "The balance", body = Balance), (status = 400, response = Malformed), (status = 404, response = NotFound), (status = 429, response = TooManyRequests), (status = 503, response = Unavailable))
)]
#[expect(dead_code, reason = "described, never called")]
fn find_balance() {}

/// List risk assessments, newest transaction first
#[utoipa::path(
    get, path = "/risk-assessments", tag = "risk",
    params(
        ("account_id" = Option<String>, Query, pattern = r"^[A-Za-z0-9._:-]{1,64}$"),
        ("from" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Of transactions created at or after"),
        ("to" = Option<chrono::DateTime<chrono::Utc>>, Query, description = "Of transactions created before"),
        ("level" = Option<String>, Query, pattern = "^(low|medium|high)$"),
        ("rule" = Option<String>, Query, min_length = 1, max_length = 128, description = "A live rule that fired"),
        ("ruleset" = Option<String>, Query, min_length = 1, max_length = 128, description = "Content hash of the rules"),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "50 if not given"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, under the same filters", max_length = 128)
    ),
    responses((status = 200, description = "A page", body = AssessmentPage), (status = 400, response = Malformed), (status = 429, response = TooManyRequests), (status = 503, response = Unavailable))
)]
#[expect(dead_code, reason = "described, never called")]
fn list_assessments() {}
