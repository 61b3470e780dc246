//! The shapes of the API: what clients send and get.

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// What a transaction is posted with.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "a shape that is described, never made")]
pub(super) struct NewTransaction {
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
pub(super) enum Direction {
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
pub(super) struct Transaction {
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
pub(super) struct AssessedTransaction {
    #[schema(inline)]
    #[serde(flatten)]
    transaction: Transaction,
    risk: Risk,
}

/// `pending` until scored; then with everything else.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
pub(super) struct Risk {
    status: RiskStatus,
    #[schema(nullable = false, minimum = 0, maximum = 100)]
    risk_score: Option<i16>,
    #[schema(nullable = false)]
    risk_level: Option<RiskLevel>,
    #[schema(nullable = false)]
    reasons: Option<Vec<RiskReason>>,
    /// Of rules in mode `shadow`, which add nothing to the score.
    #[schema(nullable = false)]
    shadow_reasons: Option<Vec<RiskReason>>,
    /// Content hash of the rules.
    #[schema(nullable = false)]
    ruleset: Option<String>,
    #[schema(nullable = false)]
    assessed_at: Option<chrono::DateTime<chrono::Utc>>,
}

/// How risky the rules found it.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "a shape that is described, never made")]
pub(super) enum RiskLevel {
    Low,
    Medium,
    High,
}

/// A level, or not assessed yet.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "a shape that is described, never made")]
pub(super) enum RiskState {
    Low,
    Medium,
    High,
    Pending,
}

/// Whether it was assessed yet.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "a shape that is described, never made")]
pub(super) enum RiskStatus {
    Pending,
    Assessed,
}

/// A rule that fired.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
pub(super) struct RiskReason {
    rule: String,
    score: i16,
    reason: String,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
pub(super) struct TransactionPage {
    /// At most `limit`; fewer, even none, where few of the rows that were looked at match.
    items: Vec<Transaction>,
    /// Give it as `cursor` to go on; null on the last page, and only there.
    next_cursor: Option<String>,
}

/// A batch: each item has its own `idempotency_key` beside the fields of a transaction.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "a shape that is described, never made")]
pub(super) struct NewBatch {
    /// 1 to 1,000 items; each is checked by itself, so a wrong one is refused alone.
    #[schema(min_items = 1, max_items = 1000)]
    transactions: Vec<NewBatchItem>,
}

/// A transaction and its key.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "a shape that is described, never made")]
struct NewBatchItem {
    /// 1 to 255 visible ASCII characters, bare or in double quotes; unique per account.
    #[schema(
        min_length = 1,
        max_length = 257,
        pattern = r#"^([!#-~][!-~]{0,254}|"[!#-~]{1,255}")$"#,
        example = "order-77"
    )]
    idempotency_key: String,
    /// The account; it opens with its first transaction.
    #[schema(pattern = r"^[A-Za-z0-9._:-]{1,64}$", example = "acct-42")]
    account_id: String,
    direction: Direction,
    /// As in a single transaction.
    #[schema(pattern = r"^[0-9]{1,18}(\.[0-9]{1,4})?$", example = "125.50")]
    amount: String,
    #[schema(pattern = "^[A-Z]{3}$", example = "EUR")]
    currency: String,
    #[schema(min_length = 1, max_length = 128, example = "shop-9")]
    counterparty: Option<String>,
    #[schema(min_length = 1, max_length = 500, example = "order 77")]
    description: Option<String>,
    /// A flat object of up to 20 strings, booleans and whole numbers, at most 2 KiB as JSON.
    metadata: Option<BTreeMap<String, MetadataValue>>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
pub(super) struct BatchResults {
    /// One for each item, in order.
    results: Vec<BatchResult>,
}

/// What became of an item: a transaction (201 new, 200 replayed) or a problem.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
pub(super) struct BatchResult {
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
pub(super) struct AccountTerms {
    #[schema(pattern = "^[A-Z]{3}$", example = "EUR")]
    currency: String,
    /// A debit that would leave less is refused; null or absent for no limit.
    #[schema(pattern = r"^-?[0-9]{1,18}(\.[0-9]{1,4})?$", example = "-100.00")]
    min_balance: Option<String>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
pub(super) struct Account {
    #[schema(example = "acct-42")]
    account_id: String,
    #[schema(example = "EUR")]
    currency: String,
    #[schema(example = "-125.50")]
    balance: String,
    /// 0 before the first transaction.
    account_seq: i64,
    /// Null for no limit.
    #[schema(example = "-200.00")]
    min_balance: Option<String>,
    opened_at: chrono::DateTime<chrono::Utc>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
pub(super) struct Balance {
    #[schema(example = "acct-42")]
    account_id: String,
    #[schema(example = "EUR")]
    currency: String,
    #[schema(example = "-125.50")]
    balance: String,
    account_seq: i64,
    as_of: chrono::DateTime<chrono::Utc>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
pub(super) struct AssessmentPage {
    /// At most `limit`; fewer, even none, where few of the rows that were looked at match.
    items: Vec<Assessment>,
    /// Give it as `cursor` to go on; null on the last page, and only there.
    next_cursor: Option<String>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
pub(super) struct Assessment {
    transaction_id: uuid::Uuid,
    account_id: String,
    account_seq: i64,
    #[schema(minimum = 0, maximum = 100)]
    risk_score: i16,
    risk_level: RiskLevel,
    reasons: Vec<RiskReason>,
    shadow_reasons: Vec<RiskReason>,
    ruleset: String,
    assessed_at: chrono::DateTime<chrono::Utc>,
}

/// RFC 9457. The types are listed in `docs/problems.md`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape that is described, never made")]
pub(super) struct Problem {
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
pub(super) struct FieldProblem {
    field: String,
    message: String,
}
