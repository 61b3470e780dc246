//! The order of rows: which one a file has, and whether it can be posted.
//!
//! An account's rows are posted in the order of time. A file with its newest rows first would post its first row and have
//! all others refused, so the order of every file is checked before anything is written.
//!
//! Rows of the same moment, such as those of a bank that knows only days, have no order of their own. Balances show it:
//! they fit in one direction only.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use serde::Deserialize;

use super::{OnError, row::Row};

/// Accounts that are remembered. Rows of further accounts are not checked in advance.
const ACCOUNTS_MAX: usize = 400_000;

/// The order in which to post the rows of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// As in the file, whose rows must be in the order of time for each account.
    #[default]
    File,
    /// From the last row of the file to the first.
    NewestFirst,
    /// By `created_at`. Rows of the same moment keep the order of the file.
    ByTime,
}

/// Counts in which direction time and balances run, account by account.
pub(super) struct OrderCheck {
    hasher: RandomState,
    accounts: HashMap<u64, LastRow>,
    forward: u64,
    backward: u64,
    same_moment: u64,
    balances_fit: u64,
    balances_fit_backward: u64,
    /// A description of the first row that is earlier than the row before it.
    first_backward: Option<String>,
}

/// The last row of an account.
#[derive(Default)]
struct LastRow {
    created_at: Option<i64>,
    balance: Option<i64>,
    /// The sum of the rows that led to `balance`: the last one, and those without a balance before it.
    step: i64,
    /// The sum of the rows after the one with the balance.
    since: i64,
}

impl OrderCheck {
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            accounts: HashMap::new(),
            forward: 0,
            backward: 0,
            same_moment: 0,
            balances_fit: 0,
            balances_fit_backward: 0,
            first_backward: None,
        }
    }

    /// Looks at the next row in the order of posting.
    pub(super) fn add(&mut self, row: &Row) {
        let account = self.hasher.hash_one(row.posting.account_id.as_str());
        if self.accounts.len() >= ACCOUNTS_MAX && !self.accounts.contains_key(&account) {
            return;
        }
        let last = self.accounts.entry(account).or_default();
        if let Some(at) = row.posting.created_at.map(|at| at.timestamp_micros()) {
            match last.created_at.map(|before| at.cmp(&before)) {
                Some(std::cmp::Ordering::Less) => {
                    self.backward += 1;
                    self.first_backward.get_or_insert_with(|| row.location.to_string());
                }
                Some(std::cmp::Ordering::Equal) => self.same_moment += 1,
                Some(std::cmp::Ordering::Greater) => self.forward += 1,
                None => {}
            }
            last.created_at = Some(at);
        }
        last.since = last.since.saturating_add(row.posting.signed_minor());
        let Some(balance) = row.expected_balance else { return };
        if let Some(before) = last.balance {
            self.balances_fit += u64::from(before.saturating_add(last.since) == balance);
            self.balances_fit_backward += u64::from(balance.saturating_add(last.step) == before);
        }
        (last.balance, last.step, last.since) = (Some(balance), last.since, 0);
    }

    /// Returns why the rows cannot be posted in this order, with the remedy.
    pub(super) fn refusal(&self, order: Order, on_error: OnError) -> Option<String> {
        if self.backward > self.forward && self.balances_fit <= self.balances_fit_backward {
            return Some(match order {
                Order::File => format!(
                    "the newest rows come first ({} is earlier than the row before it); post them from the end of the file \
                     with --order newest-first, or order = \"newest-first\" in the map",
                    self.first()
                ),
                Order::NewestFirst | Order::ByTime => format!(
                    "the oldest rows come first ({} is earlier than the row after it in the file); leave out the order \
                     \"newest-first\"",
                    self.first()
                ),
            });
        }
        if self.balances_fit_backward > self.balances_fit {
            let remedy = match order {
                Order::NewestFirst => "leave out the order \"newest-first\"",
                Order::File if self.forward > 0 => "sort the file",
                Order::File | Order::ByTime => {
                    "post them from the end of the file with --order newest-first, or order = \"newest-first\" in the map"
                }
            };
            return Some(format!(
                "rows of the same moment are in reverse order: {} expected balances fit from the end of the file, and {} \
                 from the beginning; {remedy}",
                self.balances_fit_backward, self.balances_fit
            ));
        }
        (self.backward > 0 && on_error == OnError::Stop).then(|| {
            format!(
                "{} is earlier than the row of its account before it, and so are {} rows in all; post them sorted with \
                 --order by-time, or skip these rows with --on-error skip",
                self.first(),
                self.backward
            )
        })
    }

    fn first(&self) -> &str {
        self.first_backward.as_deref().unwrap_or("a row")
    }

    /// Returns a warning if nothing shows the order of rows of the same moment.
    pub(super) fn warning(&self) -> Option<String> {
        let is_unknown = self.forward == 0
            && self.backward == 0
            && self.balances_fit == 0
            && self.balances_fit_backward == 0;
        (self.same_moment > 0 && is_unknown).then(|| {
            format!(
                "{} rows have the same created_at as the row of their account before them, and no balances show their \
                 order; they are posted in the order of the file. If the newest rows come first, use --order newest-first",
                self.same_moment
            )
        })
    }
}
