//! Posting: decides which requests become transactions, and commits them in groups.
//!
//! A group is a list of validated requests that are committed together. Two paths lead to the commit, and both end in
//! the same writing statement, [`write_group`](crate::repository::postings::write_group):
//!
//! ```text
//!                  ┌─ expected path ───────────────────────────────────────────┐
//!                  │ remembered account states ─▶ decide ─▶ write (1 statement) │──▶ committed
//! group of ───────▶│                                          │                │
//! requests         └──────────────────────────────────────────┼────────────────┘
//!                                 a state differs or a key exists: nothing was written
//!                  ┌─ locked path ────────────────────────────▼─────────────────────────┐
//!                  │ BEGIN ─▶ lock accounts ─▶ read keys ─▶ decide ─▶ write ─▶ COMMIT    │──▶ committed
//!                  └────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! - [`post_locked`] takes the locked path. It needs no memory.
//! - [`post_all_or_nothing`] takes the locked path too, and writes nothing if one request is refused.
//! - [`GroupPoster`] takes the expected path and falls back to the locked path.
//! - [`dry_run`] decides as the locked path does and writes nothing to the ledger.
//!
//! Guarantees:
//!
//! - A group is committed whole or not at all: accounts, transactions, outbox rows and fact marks.
//! - Correctness never depends on the memory: the writing statement compares every account with the state that the
//!   decision was based on, and fails as a whole on any difference.
//! - The number of statements does not depend on the size of the group.
//! - Between lock and commit, the code waits for nothing but PostgreSQL.
//!
//! Deliberately absent: queues and threads (see `serve`), retries after an outage (the caller's), and SQL (see
//! `repository`).

pub mod dry_run;

mod expected;
mod group;
mod locked;
mod memory;
mod poster;
mod write;

pub use group::{AccountStates, Posted, Request};
pub use locked::{post_all_or_nothing, post_locked};
pub use memory::MemoryLimits;
pub use poster::{CommitPath, GroupPoster};
