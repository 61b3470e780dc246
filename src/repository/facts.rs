//! The facts for analytics: the days that need a rebuild, the rebuild of one day, and the runs of `ledger aggregate`.
//!
//! Guarantees:
//! - The facts of a day, the deletion of its marks and the progress of the run commit together, from one snapshot of
//!   the ledger.
//! - A transaction that commits later leaves its own mark. The snapshot does not see that mark and does not delete it.
//! - A rebuild writes only the facts that are missing or differ, and removes those without a transaction. So a second
//!   rebuild writes none.
//! - A process that lost the lease commits nothing.
//!
//! A day is a UTC date. Its transactions are a range of ids, because an id is made from `created_at`.

pub mod runs;

mod days;
mod rebuild;

pub use days::{DayPreview, day_previews, days_between, id_range, marked_days};
pub use rebuild::rebuild_day;
