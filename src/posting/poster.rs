//! Posts group after group over one connection, most of them with one statement.
//!
//! The memory ends with the connection. The next connection may lead to a standby that was promoted without the last
//! commits: there, a sequence number may be used again for another balance, and a remembered transaction may be
//! missing.
//!
//! Transactions are dated by the database's clock. Each connection and each group reads it again.

use std::collections::HashSet;

use super::{
    AccountStates, MemoryLimits, Posted, Request, expected::post_expected, locked::post_locked_at,
    memory::Memory,
};
use crate::{
    config::Database,
    domain::Decision,
    repository::{Connection, RepositoryError, accounts, connect, prepare_writer, read_clock},
    runtime::DatabaseClock,
};

/// The path that committed a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitPath {
    /// One statement that checked the expected states.
    Expected,
    /// A database transaction that locked the accounts first.
    Locked,
}

impl CommitPath {
    /// Returns `expected` or `locked`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Locked => "locked",
        }
    }
}

/// A connection that posts groups, with its memory.
pub struct GroupPoster {
    connection: Connection,
    memory: Memory,
    clock: DatabaseClock,
}

impl GroupPoster {
    /// Connects, and reads the clock. `role` becomes the `application_name`.
    pub async fn connect(
        database: &Database,
        role: &str,
        limits: MemoryLimits,
        clock: DatabaseClock,
    ) -> Result<Self, RepositoryError> {
        let mut connection = connect(database, role).await?;
        prepare_writer(&mut connection).await?;
        let mut poster = Self { connection, memory: Memory::new(limits), clock };
        poster.read_clock().await?;
        Ok(poster)
    }

    /// Reads the database's clock. Groups read it too; call this while there are none.
    pub async fn read_clock(&mut self) -> Result<(), RepositoryError> {
        self.clock.observe(read_clock(&mut self.connection).await?);
        Ok(())
    }

    /// Posts a group in one commit. Returns one decision for each request, in order, and the path taken.
    pub async fn post(&mut self, group: &[Request]) -> Result<(Vec<Decision>, CommitPath), RepositoryError> {
        let (posted, path) = match self.post_on_either_path(group).await {
            // The database's clock was set, or this machine was suspended. Nothing was written.
            Err(error) if error.is_clock_difference() => {
                self.read_clock().await?;
                self.post_on_either_path(group).await?
            }
            outcome => outcome?,
        };
        if let Some(reading) = posted.server_time {
            self.clock.observe(reading);
        }
        self.memory.remember_accounts(posted.accounts);
        self.memory.remember_created(&posted.decisions);
        Ok((posted.decisions, path))
    }

    async fn post_on_either_path(
        &mut self,
        group: &[Request],
    ) -> Result<(Posted, CommitPath), RepositoryError> {
        let before = self.expected_states(group).await?;
        let transactions = self.memory.transactions();
        let now = self.clock.now();
        if let Some(posted) = post_expected(&mut self.connection, &before, transactions, group, now).await? {
            return Ok((posted, CommitPath::Expected));
        }
        let clock = &self.clock;
        let posted = post_locked_at(&mut self.connection, group, &|| clock.now()).await?;
        Ok((posted, CommitPath::Locked))
    }

    /// Returns the states of the group's accounts: from the memory, or read without a lock. Accounts that are not open
    /// yet are absent.
    async fn expected_states(&mut self, group: &[Request]) -> Result<AccountStates, RepositoryError> {
        let mut states = AccountStates::with_capacity(group.len());
        let mut unknown = HashSet::new();
        for request in group {
            let account_id = &request.posting.account_id;
            match self.memory.account(account_id) {
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
}
