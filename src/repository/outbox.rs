//! The outbox as the relay uses it: scans of the rows still present, in order, and their removal under leases.
//!
//! There is no cursor. Each scan begins at the first row that is present, so a row that commits late, with a lower id
//! than others, is found too.
//!
//! Deliberately absent: inserting. Each writer inserts its outbox rows in its own statement.

mod backlog;
mod removal;
mod row;
mod scan;

pub use backlog::{Backlog, LaneBacklog, ROWS_COUNTED_MAX, backlog, lane_backlogs};
pub use removal::remove;
pub use row::{OutboxAddress, OutboxRow, OutboxRowId, RejectedRow};
pub use scan::{DrawnIds, OutboxScan, configure_session, drawn_ids, read_rows, scan, scan_addresses};
