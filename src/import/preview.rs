//! The preview of a dry run: the first rows as they would be posted, and the balances at the end.

use std::collections::BTreeMap;

use super::row::Row;
use crate::{
    domain::{Currency, format_minor, format_moment},
    runtime::{print_text, table},
};

const ROWS_MAX: usize = 5;
const ACCOUNTS_MAX: usize = 20;

/// The first rows and accounts of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Preview {
    rows: Vec<PreviewRow>,
    /// The last balance of each of the first accounts, in minor units.
    balances: BTreeMap<String, (Currency, i64)>,
    has_more_accounts: bool,
}

/// One row as it would be posted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PreviewRow {
    account_id: String,
    created_at: String,
    direction: &'static str,
    amount: String,
    currency: Currency,
    balance_after: String,
    counterparty: String,
    description: String,
    idempotency_key: String,
}

impl Preview {
    /// Adds a row that is posted or replayed.
    pub(super) fn add(&mut self, row: &Row, balance_after: i64) {
        let posting = &row.posting;
        let account_id = posting.account_id.as_str();
        let has_room = self.balances.len() < ACCOUNTS_MAX;
        match self.balances.get_mut(account_id) {
            Some((_, balance)) => *balance = balance_after,
            None if has_room => {
                self.balances.insert(account_id.to_owned(), (posting.currency, balance_after));
            }
            None => self.has_more_accounts = true,
        }
        if self.rows.len() >= ROWS_MAX {
            return;
        }
        let text = |text: &Option<Box<str>>| text.as_deref().unwrap_or_default().to_owned();
        self.rows.push(PreviewRow {
            account_id: account_id.to_owned(),
            created_at: posting.created_at.map_or_else(|| "now".to_owned(), format_moment),
            direction: posting.direction.as_str(),
            amount: format_minor(posting.amount.minor(), posting.currency),
            currency: posting.currency,
            balance_after: format_minor(balance_after, posting.currency),
            counterparty: text(&posting.counterparty),
            description: text(&posting.description),
            idempotency_key: posting.idempotency_key.as_str().to_owned(),
        });
    }

    pub(super) fn print_tables(&self) -> std::io::Result<()> {
        let mut rows = table([
            "account",
            "created_at",
            "direction",
            "amount",
            "currency",
            "balance after",
            "counterparty",
            "description",
            "idempotency_key",
        ]);
        for row in &self.rows {
            rows.add_row([
                row.account_id.as_str(),
                &row.created_at,
                row.direction,
                &row.amount,
                row.currency.code(),
                &row.balance_after,
                &row.counterparty,
                &row.description,
                &row.idempotency_key,
            ]);
        }
        print_text(rows)?;
        let mut balances = table(["account", "balance at the end", "currency"]);
        for (account, (currency, balance)) in &self.balances {
            balances.add_row([account.as_str(), &format_minor(*balance, *currency), currency.code()]);
        }
        print_text(balances)?;
        if self.has_more_accounts {
            print_text(format!("The balances are those of the first {ACCOUNTS_MAX} accounts."))?;
        }
        Ok(())
    }

    pub(super) fn as_json(&self) -> serde_json::Value {
        let rows = self.rows.iter().map(|row| {
            serde_json::json!({
                "account_id": row.account_id,
                "idempotency_key": row.idempotency_key,
                "direction": row.direction,
                "amount": row.amount,
                "currency": row.currency.code(),
                "balance_after": row.balance_after,
                "created_at": row.created_at,
                "counterparty": row.counterparty,
                "description": row.description,
            })
        });
        let balances = self.balances.iter().map(|(account, (currency, balance))| {
            serde_json::json!({
                "account_id": account,
                "currency": currency.code(),
                "balance": format_minor(*balance, *currency),
            })
        });
        serde_json::json!({
            "first_rows": rows.collect::<Vec<_>>(),
            "balances": balances.collect::<Vec<_>>(),
            "has_more_accounts": self.has_more_accounts,
        })
    }
}
