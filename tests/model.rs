//! The protocol of leases, outbox and positions, explored exhaustively: every interleaving of two relays, two consumers,
//! writers and a bounded number of faults. The processes of the model call the pure decisions of the product, and the
//! database of the model is compared with PostgreSQL.
//!
//! ```text
//! writers ─▶ outbox ─▶ relay, relay ─▶ log ─▶ consumer, consumer ─▶ position, assessments
//!               └── each statement, each request and each fault is one step of the model ──┘
//! ```
//!
//! `docs/faults.md` lists the scope of the model and its gaps. `make model` explores more faults.

mod broker;
mod consumer;
mod database;
mod member;
mod properties;
mod relay;
mod scenario;
mod start_checks;
mod state;
mod twins;
mod world;

use stateright::{Checker, Model};

use self::{
    properties::{FENCED, GAP_REPORTED, NO_SKIP, NOT_LOST, ORDER, RECOVERS},
    scenario::{Fault, Guards, Scenario},
};

/// The faults of a relay: everything but the broker's loss of records.
const RELAY_FAULTS: &[Fault] = &[
    Fault::Crash,
    Fault::PausedOwner,
    Fault::LostAcknowledgement,
    Fault::LateRequest,
    Fault::LostCommitAnswer,
    Fault::RolledBackPosting,
    Fault::NewConnection,
    Fault::SequenceNotRestored,
    Fault::PartitionAdded,
];
/// The faults of a consumer and of its topic.
const CONSUMER_FAULTS: &[Fault] = &[
    Fault::Crash,
    Fault::PausedOwner,
    Fault::LostCommitAnswer,
    Fault::CleanElection,
    Fault::UncleanElection,
    Fault::Retention,
    Fault::Compaction,
    Fault::TopicCreatedAgain,
];
/// The faults of relays, consumers and their topic.
const ALL_FAULTS: &[Fault] = &[
    Fault::Crash,
    Fault::PausedOwner,
    Fault::LostAcknowledgement,
    Fault::LateRequest,
    Fault::LostCommitAnswer,
    Fault::UncleanElection,
    Fault::TopicCreatedAgain,
];

/// Relays share a lane. There are two accounts, so that a row may commit after a row with a higher id.
fn relays(count: usize, fault_count: u8) -> Scenario {
    Scenario {
        transactions: &[(1, 2), (2, 1)],
        relays: count,
        has_foreign_relay: false,
        consumers: 0,
        faults: RELAY_FAULTS,
        fault_count,
        is_compacted: false,
        guards: Guards::ALL,
        only: None,
    }
}

/// Two consumers share a partition. The events are published by themselves.
fn consumers(fault_count: u8) -> Scenario {
    Scenario { consumers: 2, faults: CONSUMER_FAULTS, ..relays(0, fault_count) }
}

/// Two relays and two consumers.
fn everything(fault_count: u8) -> Scenario {
    Scenario { transactions: &[(1, 2)], consumers: 2, faults: ALL_FAULTS, ..relays(2, fault_count) }
}

/// Explores the scenario and asserts that every property holds.
fn holds(name: &str, scenario: Scenario) {
    let checker = scenario.checker().threads(2).spawn_bfs().join();
    println!(
        "{name}: {} states, {} steps, the longest path has {}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

/// Explores a scenario without a guard, and asserts that the model finds the broken property.
fn is_found(name: &str, property: &'static str, scenario: Scenario) {
    // The checker stops when it has seen every property broken.
    let scenario = Scenario { only: Some(property), ..scenario };
    let checker = scenario.checker().threads(2).spawn_bfs().join();
    let path = checker.discovery(property).unwrap_or_else(|| panic!("{name}: {property} was not broken"));
    println!(
        "{name}: {} states, {property}: broken by {:?}",
        checker.unique_state_count(),
        path.into_actions()
    );
}

/// Seen to fail when `Floors::settle` ignored the open transactions: a row stayed below the floor.
#[test]
fn relays_lose_nothing_and_keep_the_order_whatever_fails() {
    // The check of the floors is off, because it would hide a floor that is too high.
    let guards = Guards { floor_check: false, ..Guards::ALL };
    holds("one relay, two accounts", Scenario { transactions: &[(1, 1), (2, 1)], guards, ..relays(1, 1) });
    holds("two relays, one account", Scenario { transactions: &[(1, 2)], guards, ..relays(2, 1) });
}

#[test]
fn a_sequence_that_is_set_back_hides_no_row() {
    let faults = &[Fault::SequenceSetBack, Fault::Crash];
    holds("a sequence set back", Scenario { transactions: &[(1, 1), (2, 1)], faults, ..relays(1, 1) });
}

/// Seen to fail when `Attempts::move_to` moved one record too far: that record was passed.
#[test]
fn consumers_handle_everything_or_halt_whatever_fails() {
    holds("two consumers", Scenario { transactions: &[(1, 2)], ..consumers(2) });
}

#[test]
fn relays_and_consumers_recover_from_every_fault() {
    holds("everything", Scenario { transactions: &[(1, 1)], ..everything(1) });
}

/// A role refuses a compacted topic. If the topic is compacted under running roles, the gaps are reported.
#[test]
fn a_compacted_topic_is_refused_or_its_gaps_are_reported() {
    let compacted = Scenario { is_compacted: true, faults: &[Fault::Compaction], ..consumers(1) };
    assert_eq!(up(&compacted), 0, "no role starts");
    let guards = Guards { topic_settings: false, ..Guards::ALL };
    holds("compacted", Scenario { guards, ..compacted });
}

/// Returns how many processes may start.
fn up(scenario: &Scenario) -> usize {
    let state = scenario.init_states().remove(0);
    state.processes().into_iter().filter(|process| state.member(*process).is_up).count()
}

#[test]
fn a_relay_with_another_broker_is_found() {
    let refused = Scenario { has_foreign_relay: true, ..relays(2, 0) };
    assert_eq!(up(&refused), 1, "the relay with another broker does not start");
    let guards = Guards { broker_identity: false, ..Guards::ALL };
    is_found("another broker", NOT_LOST, Scenario { guards, ..refused });
}

#[test]
fn a_log_that_is_another_one_or_lost_its_end_is_found() {
    let guards = Guards { log_identity: false, ..Guards::ALL };
    for fault in [&[Fault::TopicCreatedAgain], &[Fault::UncleanElection]] {
        is_found("another log", NO_SKIP, Scenario { faults: fault, guards, ..consumers(1) });
    }
}

#[test]
fn a_compacted_topic_is_found() {
    let guards = Guards { topic_settings: false, sequence_gaps: false, ..Guards::ALL };
    let faults = &[Fault::Compaction];
    let scenario = Scenario { is_compacted: true, faults, guards, ..consumers(1) };
    is_found("compaction", GAP_REPORTED, scenario);
}

#[test]
fn partitions_that_are_added_are_found() {
    let guards = Guards { partition_count: false, ..Guards::ALL };
    let faults = &[Fault::PartitionAdded, Fault::Crash];
    let scenario = Scenario { transactions: &[(1, 2)], faults, guards, ..relays(1, 2) };
    is_found("partitions", ORDER, scenario);
}

#[test]
fn a_sequence_behind_its_rows_is_found() {
    let guards = Guards { sequence_check: false, ..Guards::ALL };
    let scenario = Scenario { faults: &[Fault::SequenceNotRestored], guards, ..relays(1, 1) };
    is_found("sequence at the start", ORDER, scenario);
    let guards = Guards { floor_check: false, ..Guards::ALL };
    let scenario = Scenario { faults: &[Fault::SequenceSetBack], guards, ..relays(1, 1) };
    is_found("sequence under a running relay", RECOVERS, scenario);
}

#[test]
fn work_without_the_fence_is_found() {
    let guards = Guards { fence: false, ..Guards::ALL };
    let faults = &[Fault::PausedOwner];
    is_found("no fence, relays", FENCED, Scenario { faults, guards, ..relays(2, 1) });
    is_found("no fence, consumers", FENCED, Scenario { faults, guards, ..consumers(1) });
}

/// `make model`.
#[test]
#[ignore = "takes minutes; run it with `make model`"]
fn more_faults_at_once() {
    holds("one relay", relays(1, 2));
    holds("two relays, two accounts", Scenario { transactions: &[(1, 1), (2, 1)], ..relays(2, 1) });
    holds("two relays, one account", Scenario { transactions: &[(1, 2)], ..relays(2, 2) });
    holds("two consumers", consumers(2));
    holds("two consumers, one account", Scenario { transactions: &[(1, 2)], ..consumers(3) });
    holds("everything", everything(1));
}
