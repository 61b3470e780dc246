//! Leases: who may do what until when, by the database's clock, and who takes part in a group.
//!
//! Guarantees: taking a lease raises its epoch; [`hold`] inside a transaction keeps everybody else from taking the
//! lease until that transaction ends, and fails if somebody already has. Waits for locks are always in name order, and
//! renewing or taking never waits for one, so nothing here can deadlock. Deliberately absent: any decision about who
//! should hold how much; that is `runtime::LeaseGroup`.

mod fence;
mod lease;
mod lookup;
mod members;
mod terms;

pub use fence::hold;
pub use lease::{Lease, LeaseState, OwnedLease};
pub use lookup::{lock_owners, owner, states};
pub use members::{heartbeat, leave, members};
pub use terms::{create, release, renew, revoke, take};
