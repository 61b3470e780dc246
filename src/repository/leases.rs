//! Leases: the right of one process to work on a lane, a partition or a role for a limited time, and the members that
//! share the leases of a group.
//!
//! Guarantees:
//! - Taking a lease raises its epoch. All times come from the database's clock.
//! - [`hold`] fences a database transaction: it fails if another process has taken the lease, and no other process can
//!   take the lease before the transaction ends.
//! - No deadlock: statements that wait for locks take them in name order, and [`renew`] and [`take`] never wait.
//!
//! Deliberately absent: how many leases a member should hold; `runtime::LeaseGroup` decides that.

mod changes;
mod fence;
mod lease;
mod lookup;
mod members;

pub use changes::{create, release, renew, revoke, take, take_in_generation};
pub use fence::hold;
pub use lease::{Lease, LeaseState, OwnedLease};
pub use lookup::{lock_owners, names_of_roles, owner, states};
pub use members::{Heartbeat, heartbeat, leave, members, members_of_roles};
