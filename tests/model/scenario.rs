//! The scenarios that are explored: who runs, which faults may happen, and which guards are in place. Every action of the
//! model is one statement, one request, or one fault.

use stateright::{Model, Property};

use super::{
    consumer::{Consumer, ConsumerStep},
    database::{Event, Row},
    properties,
    relay::{Relay, RelayStep},
    start_checks,
    state::{Process, State},
    world::World,
};

/// The guards of the product. Each can be taken away, to see that the model finds the fault that it prevents.
#[derive(Clone, Copy, Debug)]
pub struct Guards {
    /// Work under a lease checks the epoch in its own database transaction.
    pub fence: bool,
    /// A role with another broker than the recorded one is refused.
    pub broker_identity: bool,
    /// A role is refused if the topic has another number of partitions than recorded.
    pub partition_count: bool,
    /// A position belongs to a log, and a halt is stored.
    pub log_identity: bool,
    /// A role is refused if the topic is compacted.
    pub topic_settings: bool,
    /// A gap in the numbers of an account is reported.
    pub sequence_gaps: bool,
    /// A role is refused if the outbox's sequence is behind its rows.
    pub sequence_check: bool,
    /// The relay tests its scan floors.
    pub floor_check: bool,
}

impl Guards {
    pub const ALL: Self = Self {
        fence: true,
        broker_identity: true,
        partition_count: true,
        log_identity: true,
        topic_settings: true,
        sequence_gaps: true,
        sequence_check: true,
        floor_check: true,
    };
}

/// A fault. Each occurrence uses up one of the faults of the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A process ends at any step, and starts again.
    Crash,
    /// A lease expires although its owner lives: the owner is paused, or cut off, and continues later.
    PausedOwner,
    LostAcknowledgement,
    LateRequest,
    LostCommitAnswer,
    /// A posting that has drawn an id of the outbox is rolled back.
    RolledBackPosting,
    /// A relay gets a new connection to the database.
    NewConnection,
    CleanElection,
    UncleanElection,
    Retention,
    Compaction,
    TopicCreatedAgain,
    PartitionAdded,
    /// All roles stop, and the database is restored without the state of the sequence.
    SequenceNotRestored,
    /// The sequence of an empty outbox is set back under running roles.
    SequenceSetBack,
}

const BROKER_FAULTS: [Fault; 6] = [
    Fault::CleanElection,
    Fault::UncleanElection,
    Fault::Retention,
    Fault::Compaction,
    Fault::TopicCreatedAgain,
    Fault::PartitionAdded,
];
const SEQUENCE_FAULTS: [Fault; 2] = [Fault::SequenceNotRestored, Fault::SequenceSetBack];

/// An action of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A writer locks the account and draws an id of the outbox.
    Post(u8),
    CommitPosting(u8),
    RollBackPosting(u8),
    Start(Process),
    /// The watch stops a role whose broker has another number of partitions than recorded.
    StopByWatch(Process),
    Heartbeat(Process),
    Take(Process),
    Release(Process),
    Crash(Process),
    ExpireLane,
    ExpirePartition,
    Relay(usize, RelayStep),
    Consumer(usize, ConsumerStep),
    LateRequestArrives,
    Broker(Fault),
    Sequence(Fault),
    StartWriters,
    /// An operator runs `ledger migrate`, as the refused roles advise.
    Migrate,
    /// An operator runs `ledger consumers reset --to earliest`.
    Reset,
}

/// The processes, the postings, the faults and the guards of one exploration.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The number of transactions of each account.
    pub transactions: &'static [(u8, u8)],
    pub relays: usize,
    /// Whether the first relay is configured with another broker.
    pub has_foreign_relay: bool,
    pub consumers: usize,
    pub faults: &'static [Fault],
    /// How many faults happen at most.
    pub fault_count: u8,
    pub is_compacted: bool,
    pub guards: Guards,
    /// The only property to check; None for all.
    pub only: Option<&'static str>,
}

impl Scenario {
    /// Returns whether a process may start or continue.
    pub fn may_run(&self, world: &World, is_foreign: bool) -> bool {
        start_checks::pass(self.guards, world.partitions, is_foreign, self.is_compacted)
    }

    fn sequence_is_refused(&self, world: &World) -> bool {
        self.guards.sequence_check && world.database.outbox.highest_id_above_sequence().is_some()
    }

    fn allows(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Lists the actions that are no faults and that might change the state.
    fn steps(&self, state: &State, actions: &mut Vec<Action>) {
        let world = &state.world;
        for (account, count) in self.transactions {
            if world.database.open.contains_key(account) {
                actions.push(Action::CommitPosting(*account));
            } else if world.writers_are_up && self.next_seq(world, *account) <= *count {
                actions.push(Action::Post(*account));
            }
        }
        for index in 0..state.relays.len() {
            self.member_steps(state, Process::Relay(index), actions);
            let steps = state.relays[index].steps().iter().filter(|step| relay_fault(**step).is_none());
            actions.extend(steps.map(|step| Action::Relay(index, *step)));
        }
        for index in 0..state.consumers.len() {
            self.member_steps(state, Process::Consumer(index), actions);
            let steps = state.consumers[index].steps().into_iter();
            let steps = steps.filter(|step| *step != ConsumerStep::LoseCommitAnswer);
            actions.extend(steps.map(|step| Action::Consumer(index, step)));
        }
        if !world.late.is_empty() {
            actions.push(Action::LateRequestArrives);
        }
        if !world.writers_are_up {
            actions.extend([Action::StartWriters, Action::Migrate]);
        }
        if world.database.position.is_halted {
            actions.push(Action::Reset);
        }
        actions.extend([Action::ExpireLane, Action::ExpirePartition]);
    }

    fn member_steps(&self, state: &State, process: Process, actions: &mut Vec<Action>) {
        let member = state.member(process);
        if !member.is_up {
            actions.push(Action::Start(process));
            return;
        }
        if state.world.partitions != 1 {
            actions.push(Action::StopByWatch(process));
        }
        if !member.is_listed || state.lease_of(process).owner != Some(member.owner) {
            actions.push(Action::Heartbeat(process));
        }
        match (member.lease, state.share(process)) {
            (None, 1) => actions.push(Action::Take(process)),
            (Some(_), 0) => actions.push(Action::Release(process)),
            _ => {}
        }
    }

    fn faults(&self, state: &State, actions: &mut Vec<Action>) {
        let mut push = |fault: Fault, action: Action| {
            if self.allows(fault) {
                actions.push(action);
            }
        };
        for account in state.world.database.open.keys() {
            push(Fault::RolledBackPosting, Action::RollBackPosting(*account));
        }
        for (index, relay) in state.relays.iter().enumerate() {
            push(Fault::Crash, Action::Crash(Process::Relay(index)));
            for step in relay.steps() {
                if let Some(fault) = relay_fault(*step) {
                    push(fault, Action::Relay(index, *step));
                }
            }
        }
        for (index, consumer) in state.consumers.iter().enumerate() {
            push(Fault::Crash, Action::Crash(Process::Consumer(index)));
            if consumer.steps().contains(&ConsumerStep::LoseCommitAnswer) {
                push(Fault::LostCommitAnswer, Action::Consumer(index, ConsumerStep::LoseCommitAnswer));
            }
        }
        push(Fault::PausedOwner, Action::ExpireLane);
        push(Fault::PausedOwner, Action::ExpirePartition);
        BROKER_FAULTS.into_iter().for_each(|fault| push(fault, Action::Broker(fault)));
        SEQUENCE_FAULTS.into_iter().for_each(|fault| push(fault, Action::Sequence(fault)));
    }

    fn next_seq(&self, world: &World, account: u8) -> u8 {
        let count = world.database.ledger.iter().filter(|event| event.account == account).count();
        u8::try_from(count).expect("few") + 1
    }

    /// Takes a step. Returns false if it is not possible, or changes nothing.
    fn apply(&self, state: &mut State, action: Action) -> bool {
        match action {
            Action::Post(account) => self.post(&mut state.world, account),
            Action::CommitPosting(account) => self.commit_posting(&mut state.world, account),
            Action::RollBackPosting(account) => {
                state.use_fault() && state.world.database.open.remove(&account).is_some()
            }
            Action::Start(process) => self.start(state, process),
            Action::StopByWatch(process) => {
                let stops = !self.may_run(&state.world, state.is_foreign(process));
                stops && state.end(process)
            }
            Action::Heartbeat(process) => state.heartbeat(process),
            Action::Take(process) => state.take(process),
            Action::Release(process) => state.release(process),
            Action::Crash(process) => {
                state.member(process).lease.is_some() && state.use_fault() && state.end(process)
            }
            Action::ExpireLane => state.expire(Process::Relay(0)),
            Action::ExpirePartition => state.expire(Process::Consumer(0)),
            Action::Relay(index, step) => {
                let State { world, relays, .. } = state;
                relays[index].step(step, world, self.guards)
                    && (relay_fault(step).is_none() || state.use_fault())
            }
            Action::Consumer(index, step) => {
                let State { world, consumers, .. } = state;
                consumers[index].step(step, world, self.guards)
                    && (step != ConsumerStep::LoseCommitAnswer || state.use_fault())
            }
            Action::LateRequestArrives => {
                let request = state.world.late.remove(0);
                state.world.publish(&request);
                true
            }
            Action::Broker(fault) => state.use_fault() && state.break_broker(fault),
            Action::Sequence(fault) => state.use_fault() && state.set_sequence_back(fault),
            Action::StartWriters => {
                state.world.writers_are_up = !self.sequence_is_refused(&state.world);
                state.world.writers_are_up
            }
            Action::Migrate => {
                let is_advised = self.sequence_is_refused(&state.world);
                let outbox = &mut state.world.database.outbox;
                outbox.last_id = outbox.highest_id_above_sequence().unwrap_or(outbox.last_id);
                is_advised
            }
            Action::Reset => {
                let World { database, log, .. } = &mut state.world;
                database.partition.revoke();
                database.position.reset(log.start, Some(log.id));
                true
            }
        }
    }

    fn post(&self, world: &mut World, account: u8) -> bool {
        let event = Event { account, seq: self.next_seq(world, account) };
        world.database.outbox.last_id += 1;
        world.database.open.insert(account, Row { id: world.database.outbox.last_id, event });
        true
    }

    fn commit_posting(&self, world: &mut World, account: u8) -> bool {
        let Some(row) = world.database.open.remove(&account) else { return false };
        if world.database.outbox.rows.iter().any(|other| other.id == row.id) {
            // The primary key refuses an id that was drawn again. The client's retry draws another one.
            return true;
        }
        world.database.ledger.insert(row.event);
        match self.relays {
            // A scenario without relays is about the consumers: the event is published at once.
            0 => world.publish(&[(0, row.event)]),
            _ => _ = world.database.outbox.rows.insert(row),
        }
        true
    }

    fn start(&self, state: &mut State, process: Process) -> bool {
        let may_start =
            self.may_run(&state.world, state.is_foreign(process)) && !self.sequence_is_refused(&state.world);
        match process {
            _ if !may_start => {}
            Process::Relay(index) => state.relays[index].start(&state.world),
            Process::Consumer(index) => state.consumers[index].member.start(),
        }
        may_start
    }
}

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let relay = |index: usize| {
            let is_foreign = self.has_foreign_relay && index == 0;
            Relay::new(u8::try_from(index).expect("few"), is_foreign)
        };
        let consumer = |index: usize| Consumer::new(u8::try_from(index).expect("few"));
        let mut state = State {
            world: World::new(),
            relays: (0..self.relays).map(relay).collect(),
            consumers: (0..self.consumers).map(consumer).collect(),
            faults_left: self.fault_count,
        };
        for process in state.processes() {
            self.start(&mut state, process);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.steps(state, actions);
        if state.faults_left > 0 {
            self.faults(state, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.apply(&mut next, action).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let is_checked = |property: &Property<Self>| self.only.is_none_or(|only| only == property.name);
        properties::all().into_iter().filter(is_checked).collect()
    }
}

impl Scenario {
    /// Returns whether nothing happens any more without a fault.
    pub fn is_quiet(&self, state: &State) -> bool {
        let mut actions = Vec::new();
        self.steps(state, &mut actions);
        let calm = State { faults_left: 0, ..state.clone() };
        actions.into_iter().all(|action| self.next_state(&calm, action).is_none())
    }
}

fn relay_fault(step: RelayStep) -> Option<Fault> {
    match step {
        RelayStep::LoseAcknowledgement => Some(Fault::LostAcknowledgement),
        RelayStep::SendLate => Some(Fault::LateRequest),
        RelayStep::LoseRemovalAnswer => Some(Fault::LostCommitAnswer),
        RelayStep::Reconnect => Some(Fault::NewConnection),
        _ => None,
    }
}
