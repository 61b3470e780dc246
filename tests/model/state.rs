//! A state of the model, and the steps that a process does not take itself: leases, ends, faults of the broker.

use super::{
    consumer::Consumer,
    database::Lease,
    member::{Member, share},
    relay::Relay,
    scenario::Fault,
    world::World,
};

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    Relay(usize),
    Consumer(usize),
}

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub world: World,
    pub relays: Vec<Relay>,
    pub consumers: Vec<Consumer>,
    pub faults_left: u8,
}

impl State {
    pub fn processes(&self) -> Vec<Process> {
        let relays = (0..self.relays.len()).map(Process::Relay);
        relays.chain((0..self.consumers.len()).map(Process::Consumer)).collect()
    }

    pub fn member(&self, process: Process) -> &Member {
        match process {
            Process::Relay(index) => &self.relays[index].member,
            Process::Consumer(index) => &self.consumers[index].member,
        }
    }

    /// Returns the member and the lease of its group.
    fn member_and_lease(&mut self, process: Process) -> (&mut Member, &mut Lease) {
        let database = &mut self.world.database;
        match process {
            Process::Relay(index) => (&mut self.relays[index].member, &mut database.lane),
            Process::Consumer(index) => (&mut self.consumers[index].member, &mut database.partition),
        }
    }

    pub fn lease_of(&self, process: Process) -> &Lease {
        match process {
            Process::Relay(_) => &self.world.database.lane,
            Process::Consumer(_) => &self.world.database.partition,
        }
    }

    pub fn is_foreign(&self, process: Process) -> bool {
        matches!(process, Process::Relay(index) if self.relays[index].is_foreign)
    }

    /// Returns how many leases the process should hold: its only one, or none.
    pub fn share(&self, process: Process) -> usize {
        let members: Vec<&Member> = match process {
            Process::Relay(_) => self.relays.iter().map(|relay| &relay.member).collect(),
            Process::Consumer(_) => self.consumers.iter().map(|consumer| &consumer.member).collect(),
        };
        share(&members, self.member(process))
    }

    /// Returns false if there is no fault left.
    pub fn use_fault(&mut self) -> bool {
        let is_left = self.faults_left > 0;
        self.faults_left = self.faults_left.saturating_sub(1);
        is_left
    }

    pub fn end(&mut self, process: Process) -> bool {
        match process {
            Process::Relay(index) => self.relays[index].end(),
            Process::Consumer(index) => self.consumers[index].end(),
        }
        true
    }

    /// Returns false if the heartbeat tells nothing new.
    pub fn heartbeat(&mut self, process: Process) -> bool {
        let (member, lease) = self.member_and_lease(process);
        let before = (member.clone(), *lease);
        let keeps = member.heartbeat(lease);
        let is_news = before != (member.clone(), *lease);
        if !keeps && let Process::Consumer(index) = process {
            self.consumers[index].lose_lease();
        }
        is_news
    }

    pub fn take(&mut self, process: Process) -> bool {
        let (member, lease) = self.member_and_lease(process);
        let taken = lease.take(member.owner).filter(|_| member.is_listed);
        member.lease = taken.or(member.lease);
        taken.is_some()
    }

    /// Releases a surplus lease that is not in use.
    pub fn release(&mut self, process: Process) -> bool {
        let is_idle = match process {
            Process::Relay(index) => self.relays[index].is_idle(),
            Process::Consumer(index) => self.consumers[index].is_idle(),
        };
        let (member, lease) = self.member_and_lease(process);
        if is_idle {
            lease.release(member.owner);
            member.lease = None;
            if let Process::Consumer(index) = process {
                self.consumers[index].lose_lease();
            }
        }
        is_idle
    }

    /// A lease expires, and with it the heartbeat of its owner. If the owner lives, that is a fault.
    pub fn expire(&mut self, group: Process) -> bool {
        let lease = *self.lease_of(group);
        let Some(owner) = lease.owner.filter(|_| !lease.is_expired) else { return false };
        let process = match group {
            Process::Relay(_) => Process::Relay(usize::from(owner.process)),
            Process::Consumer(_) => Process::Consumer(usize::from(owner.process)),
        };
        let (member, lease) = self.member_and_lease(process);
        lease.is_expired = true;
        if !member.is_up || member.owner != owner {
            return true;
        }
        member.is_listed = false;
        self.use_fault()
    }

    /// A fault of the broker. Returns false if it changes nothing.
    pub fn break_broker(&mut self, fault: Fault) -> bool {
        let world = &mut self.world;
        let before = world.log.clone();
        match fault {
            Fault::CleanElection => drop(world.log.elect(true)),
            Fault::UncleanElection => {
                let lost = world.log.elect(false);
                world.lose(lost);
            }
            Fault::Retention => {
                let lost = world.log.remove_front();
                world.lose(lost);
            }
            Fault::Compaction => {
                let lost = world.log.compact();
                world.lose(lost);
            }
            Fault::TopicCreatedAgain => {
                let lost = world.log.create_again();
                world.lose(lost);
            }
            _ => world.partitions = 2,
        }
        world.log != before || fault == Fault::PartitionAdded
    }

    /// Sets the sequence of the outbox back.
    pub fn set_sequence_back(&mut self, fault: Fault) -> bool {
        let database = &mut self.world.database;
        let is_possible = match fault {
            Fault::SequenceSetBack => database.outbox.rows.is_empty(),
            _ => true,
        };
        if !is_possible || !database.open.is_empty() || database.outbox.last_id == 0 {
            return false;
        }
        database.outbox.last_id = 0;
        self.world.history.sequence_was_set_back |= fault == Fault::SequenceSetBack;
        if fault == Fault::SequenceNotRestored {
            self.world.writers_are_up = false;
            self.processes().into_iter().for_each(|process| _ = self.end(process));
        }
        true
    }
}
