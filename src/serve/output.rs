//! What clients get: JSON of transactions, accounts and balances. A transaction's JSON is a pure function of its
//! immutable row, which is what makes a replay byte-identical for ever.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    domain::{AccountId, AccountState, Transaction, format_minor, format_moment},
    repository::{accounts::Account, assessments::StoredAssessment},
};

/// A transaction as clients see it, borrowed from its row.
#[derive(Serialize)]
pub struct TransactionOut<'a> {
    id: Uuid,
    account_id: &'a str,
    account_seq: i64,
    direction: &'static str,
    amount: String,
    currency: &'static str,
    balance_after: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    counterparty: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reverses: Option<Uuid>,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    risk: Option<RiskOut<'a>>,
}

#[derive(Serialize)]
struct RiskOut<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    risk_score: Option<i16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    risk_level: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow_reasons: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ruleset: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assessed_at: Option<String>,
}

/// The JSON of a transaction, to be printed alone or among others.
pub fn transaction_out(row: &Transaction) -> Result<TransactionOut<'_>, serde_json::Error> {
    let posting = &row.posting;
    let metadata =
        posting.metadata.as_ref().map(|metadata| serde_json::from_str(metadata.as_json())).transpose()?;
    Ok(TransactionOut {
        id: row.id,
        account_id: posting.account_id.as_str(),
        account_seq: row.account_seq,
        direction: posting.direction.as_str(),
        amount: format_minor(posting.amount.minor(), posting.currency),
        currency: posting.currency.code(),
        balance_after: format_minor(row.balance_after, posting.currency),
        counterparty: posting.counterparty.as_deref(),
        description: posting.description.as_deref(),
        metadata,
        reverses: posting.reverses,
        created_at: format_moment(row.created_at),
        risk: None,
    })
}

/// The body of a transaction.
pub fn transaction(row: &Transaction) -> Result<String, serde_json::Error> {
    serde_json::to_string(&transaction_out(row)?)
}

/// The body of a transaction with its assessment, or `pending`.
pub fn transaction_with_risk(
    row: &Transaction,
    risk: Option<&StoredAssessment>,
) -> Result<String, serde_json::Error> {
    let mut out = transaction_out(row)?;
    out.risk = Some(match risk {
        None => RiskOut {
            status: "pending",
            risk_score: None,
            risk_level: None,
            reasons: None,
            shadow_reasons: None,
            ruleset: None,
            assessed_at: None,
        },
        Some(risk) => RiskOut {
            status: "assessed",
            risk_score: Some(risk.risk_score),
            risk_level: Some(&risk.risk_level),
            reasons: Some(serde_json::from_str(&risk.reasons)?),
            shadow_reasons: Some(serde_json::from_str(&risk.shadow_reasons)?),
            ruleset: Some(&risk.ruleset),
            assessed_at: Some(format_moment(risk.assessed_at)),
        },
    });
    serde_json::to_string(&out)
}

/// A page of transactions: `{"items": […], "next_cursor": …}`.
pub fn transactions(rows: &[Transaction], next_cursor: Option<&str>) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Page<'a> {
        items: Vec<TransactionOut<'a>>,
        next_cursor: Option<&'a str>,
    }
    let items = rows.iter().map(transaction_out).collect::<Result<_, _>>()?;
    serde_json::to_string(&Page { items, next_cursor })
}

/// A page of assessments: `{"items": […], "next_cursor": …}`.
pub fn assessments(
    rows: &[StoredAssessment],
    next_cursor: Option<&str>,
) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct AssessmentOut<'a> {
        transaction_id: Uuid,
        account_id: &'a str,
        account_seq: i64,
        risk_score: i16,
        risk_level: &'a str,
        reasons: &'a RawValue,
        shadow_reasons: &'a RawValue,
        ruleset: &'a str,
        assessed_at: String,
    }
    #[derive(Serialize)]
    struct Page<'a> {
        items: Vec<AssessmentOut<'a>>,
        next_cursor: Option<&'a str>,
    }
    let items = rows
        .iter()
        .map(|row| {
            Ok(AssessmentOut {
                transaction_id: row.transaction_id,
                account_id: &row.account_id,
                account_seq: row.account_seq,
                risk_score: row.risk_score,
                risk_level: &row.risk_level,
                reasons: serde_json::from_str(&row.reasons)?,
                shadow_reasons: serde_json::from_str(&row.shadow_reasons)?,
                ruleset: &row.ruleset,
                assessed_at: format_moment(row.assessed_at),
            })
        })
        .collect::<Result<_, serde_json::Error>>()?;
    serde_json::to_string(&Page { items, next_cursor })
}

/// The body of an account.
pub fn account(account: &Account) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct AccountOut<'a> {
        account_id: &'a str,
        currency: &'static str,
        balance: String,
        account_seq: i64,
        min_balance: Option<String>,
        opened_at: String,
    }
    let state = &account.state;
    serde_json::to_string(&AccountOut {
        account_id: account.account_id.as_str(),
        currency: state.currency.code(),
        balance: format_minor(state.balance, state.currency),
        account_seq: state.account_seq,
        min_balance: state.min_balance.map(|limit| format_minor(limit, state.currency)),
        opened_at: format_moment(account.opened_at),
    })
}

/// The body of a balance, which was right at `as_of`.
pub fn balance(
    account_id: &AccountId,
    state: &AccountState,
    as_of: DateTime<Utc>,
) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct BalanceOut<'a> {
        account_id: &'a str,
        currency: &'static str,
        balance: String,
        account_seq: i64,
        as_of: String,
    }
    serde_json::to_string(&BalanceOut {
        account_id: account_id.as_str(),
        currency: state.currency.code(),
        balance: format_minor(state.balance, state.currency),
        account_seq: state.account_seq,
        as_of: format_moment(as_of),
    })
}
