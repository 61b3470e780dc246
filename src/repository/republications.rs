//! Events of transactions that are published again, through the outbox.
//!
//! ```text
//! create_selection ─▶ select_… : the numbered list, a temporary table ─▶ page ─▶ insert_batch: outbox rows + audit, one commit
//! ```
//!
//! Guarantees: an account's transactions are numbered in `account_seq` order. A transaction that is posted after the
//! selection is not in it. The audit counts exactly the rows that were put into the outbox.

mod batch;
mod selection;

pub use batch::{Republished, insert_batch, start};
pub use selection::{
    Selected, create_selection, page, select_ids, select_missing, select_range, selected, unknown_ids,
};
