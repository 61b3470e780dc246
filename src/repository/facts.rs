//! The facts for analytics: the days that have marks, the update of the facts that marks name, the rebuild of a day, and
//! the runs of `ledger aggregate`.
//!
//! Guarantees:
//! - Facts, the deletion of their marks and the progress of the run commit together, from one snapshot of the ledger.
//! - The fact of a transaction and its part in the facts of its account's day commit together.
//! - A transaction that commits later leaves its own mark. The snapshot does not see that mark and does not delete it.
//! - An update reads the ranges of ids that the marks name. It adds missing facts and missing assessments.
//! - A rebuild compares a whole day. It writes only the facts that are missing or differ, and removes those without a
//!   transaction. So a second rebuild writes none.
//! - A process that lost the lease commits nothing.
//!
//! A day is a UTC date. Its transactions are a range of ids, because an id is made from `created_at`.

pub mod runs;

mod days;
mod marks;
mod rebuild;
mod update;

pub use days::{DayPreview, day_previews, days_between, id_range, marked_days};
pub use marks::MarkKey;
pub use rebuild::rebuild_day;
pub use update::{DayUpdated, update_day};
