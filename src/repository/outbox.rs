//! The outbox as the relay uses it: scans of the rows still present, in order, and their removal under leases.
//!
//! There is no cursor. A scan begins at the ids that the relay gives, which are the scan floors of the lanes: no row can
//! appear below them, so a row that commits late, with a lower id than others, is found too. Only while partitions are
//! paused does the relay begin some scans later.
//!
//! [`id_below_floors`] finds rows that the floors hide, because an id was drawn again.
//!
//! Deliberately absent: inserting. Each writer inserts its outbox rows in its own statement.

mod backlog;
mod below_floors;
mod removal;
mod row;
mod scan;

pub use backlog::{Backlog, LaneBacklog, ROWS_COUNTED_MAX, backlog, lane_backlogs};
pub use below_floors::id_below_floors;
pub use removal::remove;
pub use row::{OutboxAddress, OutboxRow, OutboxRowId, RejectedRow};
pub use scan::{
    DrawnIds, OutboxScan, configure_session, drawn_ids, last_id, read_rows, scan, scan_addresses,
};
