//! The memory of a [`GroupPoster`](super::GroupPoster): accounts and recent transactions, both bounded.
//!
//! - *Accounts* are remembered as the last group left them.
//! - *Transactions* are remembered by their idempotency key. Most retries arrive within seconds, and a transaction
//!   never changes, so a remembered one is as good as one that was read.

use std::collections::VecDeque;

use super::AccountStates;
use crate::domain::{AccountId, AccountState, Decision, ExistingKeys, IdempotencyKey};

/// The size of the memory.
#[derive(Debug, Clone, Copy)]
pub struct MemoryLimits {
    /// Accounts. When the limit is reached, all of them are forgotten.
    pub accounts_max: usize,
    /// Transactions. When the limit is reached, the oldest are forgotten.
    pub transactions_max: usize,
}

pub(super) struct Memory {
    limits: MemoryLimits,
    accounts: AccountStates,
    transactions: ExistingKeys,
    keys_by_age: VecDeque<(AccountId, IdempotencyKey)>,
}

impl Memory {
    pub(super) fn new(limits: MemoryLimits) -> Self {
        Self {
            limits,
            accounts: AccountStates::new(),
            transactions: ExistingKeys::new(),
            keys_by_age: VecDeque::new(),
        }
    }

    /// Returns the last known state of an account.
    pub(super) fn account(&self, account_id: &AccountId) -> Option<&AccountState> {
        self.accounts.get(account_id)
    }

    /// Returns the remembered transactions.
    pub(super) fn transactions(&self) -> &ExistingKeys {
        &self.transactions
    }

    pub(super) fn remember_accounts(&mut self, accounts: AccountStates) {
        if self.accounts.len() + accounts.len() > self.limits.accounts_max {
            self.accounts.clear();
        }
        self.accounts.extend(accounts);
    }

    pub(super) fn remember_created(&mut self, decisions: &[Decision]) {
        for decision in decisions {
            let Decision::Create(created) = decision else { continue };
            let key = (created.posting.account_id.clone(), created.posting.idempotency_key.clone());
            self.keys_by_age.push_back(key.clone());
            self.transactions.insert(key, created.clone());
        }
        let surplus = self.keys_by_age.len().saturating_sub(self.limits.transactions_max);
        for key in self.keys_by_age.drain(..surplus) {
            self.transactions.remove(&key);
        }
    }
}
