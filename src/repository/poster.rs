//! Posting group after group over one connection, with a memory that spares most groups all reading.
//!
//! Two things are remembered, both bounded. *Accounts* as the last group left them: a group of known accounts is one
//! statement ([`post_expected`]); accounts that are not known are read first, without a lock. *Rows* by their key: a
//! retry comes mostly within seconds, and a row of the ledger never changes, so a remembered one is as good as a read
//! one. Where the memory was wrong about an account, or a key exists that is not remembered, the statement has failed
//! whole and the group goes the locked way ([`post_locked`]), which needs no memory.
//!
//! The memory ends with the connection. Behind the next one may be a standby that was promoted without our last
//! commits: then a sequence number is used again for another balance, and a remembered row may not be there.

use std::collections::{HashSet, VecDeque};

use super::{
    Connection, RepositoryError, accounts, connect,
    postings::{AccountStates, Posted, Request, post_expected, post_locked, prepare_writer},
};
use crate::{
    config::Database,
    domain::{AccountId, Decision, ExistingKeys, IdempotencyKey},
};

/// How a group was posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By one statement that checked what was remembered.
    Expected,
    /// By a transaction that locked the accounts first.
    Locked,
}

impl Way {
    /// `expected` or `locked`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Locked => "locked",
        }
    }
}

/// How much a [`Poster`] remembers.
#[derive(Debug, Clone, Copy)]
pub struct MemoryLimits {
    /// Accounts; beyond it all are forgotten.
    pub accounts_max: usize,
    /// Rows; beyond it the oldest are forgotten.
    pub rows_max: usize,
}

/// A connection that posts, and what it remembers.
pub struct Poster {
    connection: Connection,
    limits: MemoryLimits,
    accounts: AccountStates,
    rows: ExistingKeys,
    rows_by_age: VecDeque<(AccountId, IdempotencyKey)>,
}

impl Poster {
    /// Connects. `role` becomes the `application_name`.
    pub async fn connect(
        database: &Database,
        role: &str,
        limits: MemoryLimits,
    ) -> Result<Self, RepositoryError> {
        let mut connection = connect(database, role).await?;
        prepare_writer(&mut connection).await?;
        Ok(Self {
            connection,
            limits,
            accounts: AccountStates::new(),
            rows: ExistingKeys::new(),
            rows_by_age: VecDeque::new(),
        })
    }

    /// Posts a group in one commit and tells what became of each request, in order.
    pub async fn post(&mut self, group: &[Request]) -> Result<(Vec<Decision>, Way), RepositoryError> {
        let (posted, way) = self.post_either_way(group).await?;
        self.remember_accounts(posted.accounts);
        self.remember_rows(&posted.decisions);
        Ok((posted.decisions, way))
    }

    async fn post_either_way(&mut self, group: &[Request]) -> Result<(Posted, Way), RepositoryError> {
        let before = self.expected(group).await?;
        if let Some(posted) = post_expected(&mut self.connection, &before, &self.rows, group).await? {
            return Ok((posted, Way::Expected));
        }
        Ok((post_locked(&mut self.connection, group).await?, Way::Locked))
    }

    /// The group's accounts as they are remembered or, where they are not, as they are now. Those that are not open
    /// yet are absent.
    async fn expected(&mut self, group: &[Request]) -> Result<AccountStates, RepositoryError> {
        let mut states = AccountStates::with_capacity(group.len());
        let mut unknown = HashSet::new();
        for request in group {
            let account_id = &request.posting.account_id;
            match self.accounts.get(account_id) {
                Some(state) => drop(states.insert(account_id.clone(), state.clone())),
                None => drop(unknown.insert(account_id.as_str())),
            }
        }
        if !unknown.is_empty() {
            let unknown: Vec<&str> = unknown.into_iter().collect();
            states.extend(accounts::states(&mut self.connection, &unknown).await?);
        }
        Ok(states)
    }

    fn remember_accounts(&mut self, accounts: AccountStates) {
        if self.accounts.len() + accounts.len() > self.limits.accounts_max {
            self.accounts.clear();
        }
        self.accounts.extend(accounts);
    }

    fn remember_rows(&mut self, decisions: &[Decision]) {
        for decision in decisions {
            let Decision::Create(row) = decision else { continue };
            let key = (row.posting.account_id.clone(), row.posting.idempotency_key.clone());
            self.rows_by_age.push_back(key.clone());
            self.rows.insert(key, row.clone());
        }
        let surplus = self.rows_by_age.len().saturating_sub(self.limits.rows_max);
        for key in self.rows_by_age.drain(..surplus) {
            self.rows.remove(&key);
        }
    }
}
