//! Response bodies: transactions, assessments, accounts and balances as JSON.
//!
//! Guarantee: the JSON of a transaction depends on its immutable row alone, so a replay has the same bytes for ever.

use actix_web::{HttpResponse, HttpResponseBuilder};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{input::MetadataValue, problem::Problem};
use crate::{
    domain::{AccountId, AccountState, Direction, RiskLevel, Transaction, format_minor, format_moment},
    event::{RiskReason, RuleError},
    repository::{accounts::Account, assessments::StoredAssessment},
};

/// Returns an answer with a value as JSON.
pub fn json(mut response: HttpResponseBuilder, value: &impl Serialize) -> Result<HttpResponse, Problem> {
    let body = serde_json::to_string(value).map_err(|error| Problem::not_serializable(&error))?;
    Ok(response.content_type("application/json").body(body))
}

/// Returns JSON that is stored as text, without parsing it into values.
fn stored_json(text: &str) -> Result<&RawValue, Problem> {
    serde_json::from_str(text).map_err(|error| Problem::not_serializable(&error))
}

/// A transaction. It never changes.
#[derive(Serialize, ToSchema)]
#[schema(as = Transaction)]
pub struct TransactionOut<'a> {
    /// A UUIDv7, which sorts by time.
    id: Uuid,
    #[schema(example = "acct-42")]
    account_id: &'a str,
    /// 1, 2, 3 … without gaps within the account.
    #[schema(minimum = 1)]
    account_seq: i64,
    /// The client's key as a plain string. Absent for a reversal, which has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "order-77")]
    idempotency_key: Option<&'a str>,
    direction: Direction,
    #[schema(example = "125.50")]
    amount: String,
    #[schema(example = "EUR")]
    currency: &'static str,
    /// The account's balance after this transaction.
    #[schema(example = "-125.50")]
    balance_after: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    counterparty: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<BTreeMap<String, MetadataValue>>)]
    metadata: Option<&'a RawValue>,
    /// The transaction that this one reverses.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reverses: Option<Uuid>,
    #[schema(value_type = DateTime<Utc>)]
    created_at: String,
}

impl<'a> TransactionOut<'a> {
    /// Creates the JSON of a transaction.
    pub fn new(row: &'a Transaction) -> Result<Self, Problem> {
        let posting = &row.posting;
        let metadata =
            posting.metadata.as_ref().map(|metadata| stored_json(metadata.as_json())).transpose()?;
        Ok(Self {
            id: row.id,
            account_id: posting.account_id.as_str(),
            account_seq: row.account_seq,
            idempotency_key: posting.reverses.is_none().then(|| posting.idempotency_key.as_str()),
            direction: posting.direction,
            amount: format_minor(posting.amount.minor(), posting.currency),
            currency: posting.currency.code(),
            balance_after: format_minor(row.balance_after, posting.currency),
            counterparty: posting.counterparty.as_deref(),
            description: posting.description.as_deref(),
            metadata,
            reverses: posting.reverses,
            created_at: format_moment(row.created_at),
        })
    }
}

/// A transaction and its assessment.
#[derive(Serialize, ToSchema)]
#[schema(as = AssessedTransaction)]
pub struct AssessedTransactionOut<'a> {
    #[serde(flatten)]
    #[schema(inline)]
    transaction: TransactionOut<'a>,
    risk: RiskOut<'a>,
}

impl<'a> AssessedTransactionOut<'a> {
    /// Creates the JSON of a transaction with its assessment, or with the status `pending`.
    pub fn new(row: &'a Transaction, risk: Option<&'a StoredAssessment>) -> Result<Self, Problem> {
        let risk = risk.map_or(Ok(RiskOut::default()), RiskOut::new)?;
        Ok(Self { transaction: TransactionOut::new(row)?, risk })
    }
}

/// The assessment of a transaction. While the status is `pending`, there are no other fields.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = Risk)]
struct RiskOut<'a> {
    status: RiskStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0, maximum = 100)]
    risk_score: Option<i16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    risk_level: Option<RiskLevel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<RiskReason>>)]
    reasons: Option<&'a RawValue>,
    /// The rules in mode `shadow`, and the suppressed live rules, that fired. They add nothing to the score.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<RiskReason>>)]
    shadow_reasons: Option<&'a RawValue>,
    /// The rules that failed. They count as not fired. Absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<RuleError>>)]
    rule_errors: Option<&'a RawValue>,
    /// The content hash of the rule set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ruleset: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<DateTime<Utc>>)]
    assessed_at: Option<String>,
}

impl<'a> RiskOut<'a> {
    fn new(risk: &'a StoredAssessment) -> Result<Self, Problem> {
        Ok(Self {
            status: RiskStatus::Assessed,
            risk_score: Some(risk.risk_score),
            risk_level: Some(risk.risk_level),
            reasons: Some(stored_json(&risk.reasons)?),
            shadow_reasons: Some(stored_json(&risk.shadow_reasons)?),
            rule_errors: risk.rule_errors.as_deref().map(stored_json).transpose()?,
            ruleset: Some(&risk.ruleset),
            assessed_at: Some(format_moment(risk.assessed_at)),
        })
    }
}

/// Whether the transaction is assessed.
#[derive(Default, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum RiskStatus {
    #[default]
    Pending,
    Assessed,
}

/// What a list adds to each transaction on request.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes what `query::include_risk` accepts")]
pub enum Included {
    Risk,
}

/// A transaction of a page.
pub struct ListedRow {
    /// The transaction.
    pub transaction: Transaction,
    /// The assessment, or None while it is pending. None if the client did not ask for it.
    pub risk: Option<Option<StoredAssessment>>,
}

/// A transaction in a list.
#[derive(Serialize, ToSchema)]
#[schema(as = ListedTransaction)]
struct ListedTransactionOut<'a> {
    #[serde(flatten)]
    #[schema(inline)]
    transaction: TransactionOut<'a>,
    /// Only with `include=risk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    risk: Option<RiskOut<'a>>,
}

/// A page of transactions.
#[derive(Serialize, ToSchema)]
#[schema(as = TransactionPage)]
pub struct TransactionPageOut<'a> {
    /// At most `limit` rows. There can be fewer, or none, if few of the rows that were read match the filters.
    items: Vec<ListedTransactionOut<'a>>,
    /// The `cursor` of the next page. Null on the last page only.
    next_cursor: Option<String>,
}

impl<'a> TransactionPageOut<'a> {
    /// Creates a page from its rows and the cursor of the next page.
    pub fn new(rows: &'a [ListedRow], next_cursor: Option<String>) -> Result<Self, Problem> {
        let item = |ListedRow { transaction, risk }: &'a ListedRow| {
            let risk = risk.as_ref().map(|risk| risk.as_ref().map_or(Ok(RiskOut::default()), RiskOut::new));
            Ok(ListedTransactionOut {
                transaction: TransactionOut::new(transaction)?,
                risk: risk.transpose()?,
            })
        };
        Ok(Self { items: rows.iter().map(item).collect::<Result<_, Problem>>()?, next_cursor })
    }
}

/// An assessment of a page, with its transaction.
pub struct AssessedRow {
    /// The assessment.
    pub assessment: StoredAssessment,
    /// The transaction.
    pub transaction: Transaction,
}

/// The assessment of a transaction.
#[derive(Serialize, ToSchema)]
#[schema(as = Assessment)]
struct AssessmentOut<'a> {
    transaction_id: Uuid,
    account_id: &'a str,
    account_seq: i64,
    direction: Direction,
    /// The amount of the transaction.
    #[schema(example = "125.50")]
    amount: String,
    #[schema(example = "EUR")]
    currency: &'static str,
    /// The time of the transaction.
    #[schema(value_type = DateTime<Utc>)]
    created_at: String,
    #[schema(minimum = 0, maximum = 100)]
    risk_score: i16,
    risk_level: RiskLevel,
    #[schema(value_type = Vec<RiskReason>)]
    reasons: &'a RawValue,
    #[schema(value_type = Vec<RiskReason>)]
    shadow_reasons: &'a RawValue,
    /// The rules that failed. They count as not fired. Absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<RuleError>>)]
    rule_errors: Option<&'a RawValue>,
    ruleset: &'a str,
    #[schema(value_type = DateTime<Utc>)]
    assessed_at: String,
}

impl<'a> AssessmentOut<'a> {
    fn new(AssessedRow { assessment: row, transaction }: &'a AssessedRow) -> Result<Self, Problem> {
        let posting = &transaction.posting;
        Ok(Self {
            transaction_id: row.transaction_id,
            account_id: &row.account_id,
            account_seq: row.account_seq,
            direction: posting.direction,
            amount: format_minor(posting.amount.minor(), posting.currency),
            currency: posting.currency.code(),
            created_at: format_moment(transaction.created_at),
            risk_score: row.risk_score,
            risk_level: row.risk_level,
            reasons: stored_json(&row.reasons)?,
            shadow_reasons: stored_json(&row.shadow_reasons)?,
            rule_errors: row.rule_errors.as_deref().map(stored_json).transpose()?,
            ruleset: &row.ruleset,
            assessed_at: format_moment(row.assessed_at),
        })
    }
}

/// A page of assessments.
#[derive(Serialize, ToSchema)]
#[schema(as = AssessmentPage)]
pub struct AssessmentPageOut<'a> {
    /// At most `limit` rows. There can be fewer, or none, if few of the rows that were read match the filters.
    items: Vec<AssessmentOut<'a>>,
    /// The `cursor` of the next page. Null on the last page only.
    next_cursor: Option<String>,
}

impl<'a> AssessmentPageOut<'a> {
    /// Creates a page from its rows and the cursor of the next page.
    pub fn new(rows: &'a [AssessedRow], next_cursor: Option<String>) -> Result<Self, Problem> {
        let items = rows.iter().map(AssessmentOut::new).collect::<Result<_, _>>()?;
        Ok(Self { items, next_cursor })
    }
}

/// An account with its balance and limit.
#[derive(Serialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountOut<'a> {
    #[schema(example = "acct-42")]
    account_id: &'a str,
    #[schema(example = "EUR")]
    currency: &'static str,
    #[schema(example = "-125.50")]
    balance: String,
    /// The number of the last transaction; 0 before the first.
    account_seq: i64,
    /// The limit, or null for none.
    #[schema(example = "-200.00")]
    min_balance: Option<String>,
    /// The time of the last transaction, or null before the first.
    #[schema(value_type = Option<DateTime<Utc>>)]
    last_transaction_at: Option<String>,
    #[schema(value_type = DateTime<Utc>)]
    opened_at: String,
}

impl<'a> AccountOut<'a> {
    /// Creates the JSON of an account.
    pub fn new(account: &'a Account) -> Self {
        let state = &account.state;
        Self {
            account_id: account.account_id.as_str(),
            currency: state.currency.code(),
            balance: format_minor(state.balance, state.currency),
            account_seq: state.account_seq,
            min_balance: state.min_balance.map(|limit| format_minor(limit, state.currency)),
            last_transaction_at: state.last_created_at.map(format_moment),
            opened_at: format_moment(account.opened_at),
        }
    }
}

/// A page of accounts.
#[derive(Serialize, ToSchema)]
#[schema(as = AccountPage)]
pub struct AccountPageOut<'a> {
    items: Vec<AccountOut<'a>>,
    /// The `cursor` of the next page. Null on the last page only.
    next_cursor: Option<String>,
}

impl<'a> AccountPageOut<'a> {
    /// Creates a page from its accounts and the cursor of the next page.
    pub fn new(accounts: &'a [Account], next_cursor: Option<String>) -> Self {
        Self { items: accounts.iter().map(AccountOut::new).collect(), next_cursor }
    }
}

/// The balance of an account at a moment.
#[derive(Serialize, ToSchema)]
#[schema(as = Balance)]
pub struct BalanceOut<'a> {
    #[schema(example = "acct-42")]
    account_id: &'a str,
    #[schema(example = "EUR")]
    currency: &'static str,
    #[schema(example = "-125.50")]
    balance: String,
    account_seq: i64,
    #[schema(value_type = DateTime<Utc>)]
    as_of: String,
}

impl<'a> BalanceOut<'a> {
    /// Creates the JSON of a balance from the state of the account at `as_of`.
    pub fn new(account_id: &'a AccountId, state: &AccountState, as_of: DateTime<Utc>) -> Self {
        Self {
            account_id: account_id.as_str(),
            currency: state.currency.code(),
            balance: format_minor(state.balance, state.currency),
            account_seq: state.account_seq,
            as_of: format_moment(as_of),
        }
    }
}
