//! What must be true of each account, from the answers alone: sequence numbers 1, 2, 3 … each once, ids that rise with
//! them, and every balance the sum of all amounts so far. Answers arrive in any order; those ahead of a gap wait for it to close.
//!
//! The accounts are the run's own, so nobody else posts to them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

use super::{client::Acknowledged, traffic::Request};

/// A new transaction as it was answered. Minor units.
#[derive(Debug, Clone, Copy)]
struct Entry {
    id: Uuid,
    amount: i64,
    balance_after: i64,
}

#[derive(Debug, Default)]
struct Account {
    account_seq: i64,
    balance: i64,
    last_id: Uuid,
    /// Answers beyond a gap, by sequence number.
    ahead: BTreeMap<i64, Entry>,
    /// Requests that were never answered; each may have been carried out.
    unanswered: usize,
}

/// The accounts of a run.
#[derive(Debug)]
pub(super) struct Book(Box<[Mutex<Account>]>);

impl Book {
    pub(super) fn new(accounts: usize) -> Self {
        Self((0..accounts).map(|_| Mutex::default()).collect())
    }

    fn with<T>(&self, account: usize, work: impl FnOnce(&mut Account) -> T) -> Option<T> {
        let mut account = self.0.get(account)?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(work(&mut account))
    }

    /// Takes in what was answered to a new transaction. The error says what cannot be.
    pub(super) fn enter(&self, request: &Request, answer: &Acknowledged) -> Result<(), String> {
        let entry =
            Entry { id: answer.id, amount: request.signed_minor(), balance_after: answer.balance_after };
        let entered = self.with(request.account, |account| account.enter(answer.account_seq, entry));
        entered.unwrap_or(Ok(())).map_err(|what| format!("{}: {what}", request.account_id))
    }

    /// Notes that a request may or may not have been carried out.
    pub(super) fn unanswered(&self, request: &Request) {
        self.with(request.account, |account| account.unanswered += 1);
    }

    /// Gaps that are left at the end and that no unanswered request explains.
    pub(super) fn gaps(&self) -> usize {
        let is_open = |account: &mut Account| !account.ahead.is_empty() && account.unanswered == 0;
        (0..self.0.len()).filter(|index| self.with(*index, is_open).unwrap_or(false)).count()
    }
}

impl Account {
    fn enter(&mut self, account_seq: i64, entry: Entry) -> Result<(), String> {
        if account_seq <= self.account_seq || self.ahead.contains_key(&account_seq) {
            return Err(format!("account_seq {account_seq} was given twice"));
        }
        self.ahead.insert(account_seq, entry);
        while let Some(Entry { id, amount, balance_after }) = self.ahead.remove(&(self.account_seq + 1)) {
            self.account_seq += 1;
            let last_id = std::mem::replace(&mut self.last_id, id);
            if id <= last_id {
                return Err(format!(
                    "account_seq {} has id {id}, but the one before it {last_id}",
                    self.account_seq
                ));
            }
            let expected = self.balance + amount;
            self.balance = balance_after;
            if balance_after != expected {
                return Err(format!(
                    "balance_after of account_seq {} is {balance_after}, but the amounts so far sum to {expected} \
                     (minor units)",
                    self.account_seq
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(account: &mut Account, seq: i64, amount: i64, balance_after: i64) -> Result<(), String> {
        account.enter(seq, Entry { id: Uuid::from_u128(seq.unsigned_abs().into()), amount, balance_after })
    }

    #[test]
    fn answers_in_any_order_add_up() {
        let mut account = Account::default();
        for (seq, amount, balance) in [(2, -30, 70), (3, 5, 75), (1, 100, 100)] {
            enter(&mut account, seq, amount, balance).expect("consistent");
        }
        assert_eq!((account.account_seq, account.balance, account.ahead.len()), (3, 75, 0));
    }

    #[test]
    fn a_wrong_balance_a_repeated_number_and_a_repeated_id_are_found() {
        let mut account = Account::default();
        enter(&mut account, 1, 100, 100).expect("consistent");
        assert!(enter(&mut account, 2, 10, 111).expect_err("wrong").contains("sum to 110"));
        assert!(enter(&mut account, 2, 10, 121).expect_err("twice").contains("given twice"));
        enter(&mut account, 4, 1, 112).expect("ahead");
        assert!(enter(&mut account, 4, 1, 112).expect_err("twice").contains("given twice"));
        let repeated = Entry { id: Uuid::from_u128(2), amount: 0, balance_after: 111 };
        assert!(account.enter(3, repeated).expect_err("repeated").contains("has id"));
    }
}
