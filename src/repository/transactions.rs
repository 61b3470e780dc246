//! The transactions of the ledger: look-ups, pages, and reads for scoring. `posting` writes them.

mod account_history;
mod look_up;
mod pages;
mod row;
mod unassessed;

pub use account_history::{EarlierRow, LedgerRow, SequenceGap, each_earlier_row, ledger_rows, sequence_gaps};
pub use look_up::{existing, find, find_all, find_by_key};
pub use pages::{TransactionFilter, page};
pub(super) use row::TransactionRow;
pub use unassessed::{piece_end, unassessed};
