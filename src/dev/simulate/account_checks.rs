//! Checks each account from the answers alone: sequence numbers are 1, 2, 3 … each once, ids rise with them, and each
//! balance is the sum of all amounts so far.
//!
//! Answers arrive in any order. An answer ahead of a gap is checked when the gap is closed. No other client posts to the
//! accounts of a run.

use std::{cell::RefCell, collections::BTreeMap};

use uuid::Uuid;

use super::{client::Acknowledged, traffic::Request};

/// A new transaction as the API answered it. Amounts are in minor units.
#[derive(Debug, Clone, Copy)]
struct NewTransaction {
    id: Uuid,
    amount: i64,
    balance_after: i64,
}

#[derive(Debug, Default)]
struct Account {
    account_seq: i64,
    balance: i64,
    last_id: Uuid,
    /// Answers ahead of a gap, by sequence number.
    ahead: BTreeMap<i64, NewTransaction>,
    /// Requests that were never answered. The server may have carried out each of them.
    unanswered: usize,
}

/// The accounts of a run.
#[derive(Debug)]
pub(super) struct AccountChecks(Box<[RefCell<Account>]>);

impl AccountChecks {
    pub(super) fn new(accounts: usize) -> Self {
        Self((0..accounts).map(|_| RefCell::default()).collect())
    }

    /// Checks the answer to a new transaction. The error says what is inconsistent.
    pub(super) fn check(&self, request: &Request, answer: &Acknowledged) -> Result<(), String> {
        let Some(account) = self.0.get(request.account) else { return Ok(()) };
        let new = NewTransaction {
            id: answer.id,
            amount: request.signed_minor(),
            balance_after: answer.balance_after,
        };
        let checked = account.borrow_mut().check(answer.account_seq, new);
        checked.map_err(|problem| format!("{}: {problem}", request.account_id))
    }

    /// Notes that the server may or may not have carried out a request.
    pub(super) fn note_unanswered(&self, request: &Request) {
        if let Some(account) = self.0.get(request.account) {
            account.borrow_mut().unanswered += 1;
        }
    }

    /// Counts the accounts with a gap that no unanswered request explains.
    pub(super) fn gaps(&self) -> usize {
        let accounts = self.0.iter().map(RefCell::borrow);
        accounts.filter(|account| !account.ahead.is_empty() && account.unanswered == 0).count()
    }
}

impl Account {
    fn check(&mut self, account_seq: i64, new: NewTransaction) -> Result<(), String> {
        if account_seq <= self.account_seq || self.ahead.contains_key(&account_seq) {
            return Err(format!("account_seq {account_seq} was given twice"));
        }
        self.ahead.insert(account_seq, new);
        while let Some(NewTransaction { id, amount, balance_after }) =
            self.ahead.remove(&(self.account_seq + 1))
        {
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

    fn check(account: &mut Account, seq: i64, amount: i64, balance_after: i64) -> Result<(), String> {
        let id = Uuid::from_u128(seq.unsigned_abs().into());
        account.check(seq, NewTransaction { id, amount, balance_after })
    }

    #[test]
    fn answers_in_any_order_are_consistent() {
        let mut account = Account::default();
        for (seq, amount, balance) in [(2, -30, 70), (3, 5, 75), (1, 100, 100)] {
            check(&mut account, seq, amount, balance).expect("consistent");
        }
        assert_eq!((account.account_seq, account.balance, account.ahead.len()), (3, 75, 0));
    }

    #[test]
    fn a_wrong_balance_a_repeated_account_seq_and_a_repeated_id_are_found() {
        let mut account = Account::default();
        check(&mut account, 1, 100, 100).expect("consistent");
        assert!(check(&mut account, 2, 10, 111).expect_err("wrong").contains("sum to 110"));
        assert!(check(&mut account, 2, 10, 121).expect_err("twice").contains("given twice"));
        check(&mut account, 4, 1, 112).expect("ahead");
        assert!(check(&mut account, 4, 1, 112).expect_err("twice").contains("given twice"));
        let repeated = NewTransaction { id: Uuid::from_u128(2), amount: 0, balance_after: 111 };
        assert!(account.check(3, repeated).expect_err("repeated").contains("has id"));
    }
}
