//! A process of the model, and its membership in a group that shares one lease.

use ledger::runtime::fair_share;

use super::{
    database::{Lease, Owner},
    scenario::Guards,
};

/// A process. It may believe that it holds the lease although another one has taken it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    pub owner: Owner,
    pub is_up: bool,
    /// Whether its last heartbeat has not expired.
    pub is_listed: bool,
    /// The epoch of the lease that it believes to hold.
    pub lease: Option<i64>,
}

impl Member {
    pub fn new(process: u8) -> Self {
        Self { owner: Owner { process, start: 0 }, is_up: false, is_listed: false, lease: None }
    }

    /// Starts the process, which joins its group.
    pub fn start(&mut self) {
        (self.is_up, self.is_listed) = (true, true);
    }

    /// Ends the process.
    pub fn end(&mut self) {
        let owner = Owner { start: self.owner.start + 1, ..self.owner };
        *self = Self { owner, ..Self::new(owner.process) };
    }

    /// Returns whether the database transaction of this member may commit. Without the fence, reports in `is_unfenced`
    /// whether it commits although another process has the lease.
    pub fn holds(&self, lease: &mut Lease, guards: Guards, is_unfenced: &mut bool) -> bool {
        let Some(epoch) = self.lease else { return false };
        let is_held = lease.hold(self.owner, epoch);
        *is_unfenced |= !guards.fence && !is_held;
        is_held || !guards.fence
    }

    /// A heartbeat: joins, and learns whether it still owns the lease. Returns false if it has lost the lease.
    pub fn heartbeat(&mut self, lease: &mut Lease) -> bool {
        self.is_listed = true;
        let believed = self.lease;
        self.lease = self.lease.and(lease.renew(self.owner));
        self.lease == believed
    }
}

/// Returns how many leases of a group with one lease `member` should hold.
pub fn share(members: &[&Member], member: &Member) -> usize {
    let name = |member: &Member| member.owner.process.to_string();
    let listed: Vec<String> =
        members.iter().filter(|other| other.is_listed).map(|other| name(other)).collect();
    fair_share(1, &listed, &name(member))
}
