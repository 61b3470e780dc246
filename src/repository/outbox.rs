//! The outbox as the relay sees it: rows still present, in order, and their [`removal`] under a lease.
//!
//! There is no cursor: looks begin again and again at the first row that is there, so a row that is committed late, with
//! a lower id than others, is found all the same. Deliberately absent: inserting, which each writer does in its own statement.

mod backlog;
mod removal;
mod row;
mod scan;

pub use backlog::{Backlog, LaneBacklog, ROWS_COUNTED_MAX, backlog, lane_backlogs};
pub use removal::remove;
pub use row::{OutboxAddress, OutboxRow, OutboxRowId, RejectedRow};
pub use scan::{DrawnIds, OutboxScan, configure_session, drawn_ids, read_rows, scan, scan_addresses};
