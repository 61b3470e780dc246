//! The outcome of posting one row, with the reason in words if the row is refused.

use crate::domain::{Decision, Refusal, format_minor};

/// The outcome of posting one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RowOutcome {
    /// A new transaction. The balance is in minor units.
    Created { balance_after: i64 },
    /// The transaction was already in the ledger. The balance is in minor units.
    Replayed { balance_after: i64 },
    /// No transaction.
    Refused { reason: String },
}

impl From<Decision> for RowOutcome {
    fn from(decision: Decision) -> Self {
        let reason = match decision {
            Decision::Create(row) => return Self::Created { balance_after: row.balance_after },
            Decision::Replay(row) => return Self::Replayed { balance_after: row.balance_after },
            Decision::Mismatch { field } => {
                format!("idempotency_key was used before, for a transaction with another {field}")
            }
            Decision::Refused(Refusal::CurrencyMismatch { account_currency }) => {
                format!("currency must be {account_currency}, which the account holds")
            }
            Decision::Refused(Refusal::LimitExceeded { balance, min_balance, currency }) => format!(
                "amount would take the balance of {} below the account's min_balance of {}",
                format_minor(balance, currency),
                format_minor(min_balance, currency)
            ),
            Decision::Refused(Refusal::BalanceOutOfRange) => {
                "amount would take the balance out of the range that the ledger keeps".to_owned()
            }
            Decision::Refused(Refusal::BeforeLastTransaction { last_created_at }) => format!(
                "created_at must not be before the account's last transaction, {}",
                last_created_at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
            ),
            Decision::Refused(Refusal::InFuture { now }) => format!(
                "created_at is in the future: the database's clock shows {}",
                now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
            ),
        };
        Self::Refused { reason }
    }
}
