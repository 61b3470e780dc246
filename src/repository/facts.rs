//! The analytics facts: which days need work, and the rebuild of one day.
//!
//! Guarantees: a day's facts, the deletion of the marks that asked for them and the run's own progress commit together,
//! all from one snapshot of the ledger. A row that commits later leaves a mark of its own, which the snapshot did not
//! see and therefore does not delete. Rebuilding twice gives the same rows. Whoever lost the lease commits nothing.
//!
//! A day is a UTC date. Its transactions are a range of ids, since an id is made from `created_at`.

pub mod runs;

mod days;
mod rebuild;

pub use days::{days_between, id_range, marked_days};
pub use rebuild::{DayRebuilt, rebuild_day};
