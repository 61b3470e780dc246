//! The properties that must hold in every state, and the states that must be reachable: otherwise a model that does nothing
//! would pass.

use stateright::Property;

use super::{database::Event, scenario::Scenario, state::State};

/// Invariant 3: an event of the ledger is in the outbox, in the topic, or handled, unless the broker lost it.
pub const NOT_LOST: &str = "no event is lost on its way";
/// Invariant 4. It is not promised after the sequence was set back under a running relay: until the relay notices it, a row
/// below the scan floors may be overtaken. The relay warns of that.
pub const ORDER: &str = "first occurrences are published in order, in one partition";
/// Invariant 5.
pub const NO_SKIP: &str = "a position passes no unhandled record and never moves back by itself";
/// Invariant 6.
pub const FENCED: &str = "a process that lost a lease writes nothing";
/// Invariant 8.
pub const GAP_REPORTED: &str = "an event that is handled after a missing one is reported";
pub const NO_FALSE_HALT: &str = "a partition is halted only after its log has changed";
pub const RECOVERS: &str = "without further faults everything is published and handled, or a role is refused";
const DONE: &str = "everything is published and handled";
const TAKEN_OVER: &str = "a lease is taken over";

pub fn all() -> Vec<Property<Scenario>> {
    vec![
        Property::always(NOT_LOST, |_, state: &State| {
            let world = &state.world;
            world.database.ledger.iter().all(|event| {
                world.database.outbox.rows.iter().any(|row| row.event == *event)
                    || world.is_in_topic(event)
                    || world.database.handled.contains(event)
                    || world.history.lost.contains(event)
            })
        }),
        Property::always(ORDER, |_, state: &State| {
            let history = &state.world.history;
            history.sequence_was_set_back || is_in_order(&history.published)
        }),
        Property::always(NO_SKIP, |_, state: &State| {
            state.world.history.skipped.is_none() && !state.world.history.moved_back
        }),
        Property::always(FENCED, |_, state: &State| !state.world.history.is_unfenced),
        Property::always(GAP_REPORTED, |_, state: &State| {
            let database = &state.world.database;
            database.handled.iter().all(|event| {
                let before = Event { seq: event.seq - 1, ..*event };
                before.seq == 0 || database.handled.contains(&before) || database.gaps.contains(event)
            })
        }),
        Property::always(NO_FALSE_HALT, |_, state: &State| {
            !state.world.database.position.is_halted || state.world.history.log_has_changed
        }),
        Property::always(RECOVERS, |scenario, state: &State| {
            is_done(state) || is_refused(scenario, state) || !scenario.is_quiet(state)
        }),
        Property::sometimes(DONE, |scenario: &Scenario, state: &State| {
            let count: usize = scenario.transactions.iter().map(|(_, count)| usize::from(*count)).sum();
            state.world.database.ledger.len() == count && is_done(state)
        }),
        Property::sometimes(TAKEN_OVER, |_, state: &State| {
            state.world.database.lane.epoch > 1 || state.world.database.partition.epoch > 1
        }),
    ]
}

fn is_in_order(published: &[(i32, Event)]) -> bool {
    published.iter().enumerate().all(|(index, (partition, event))| {
        let before = published[..index].iter().filter(|(_, earlier)| earlier.account == event.account);
        let (count, same_partition) =
            before.fold((0, true), |(count, same), (earlier, _)| (count + 1, same && earlier == partition));
        same_partition && event.seq == count + 1
    })
}

fn is_done(state: &State) -> bool {
    let world = &state.world;
    let is_handled = |event: &Event| world.database.handled.contains(event);
    world.database.outbox.rows.is_empty()
        && world.database.open.is_empty()
        && world.late.is_empty()
        && (state.consumers.is_empty() || world.log.records.iter().all(|record| is_handled(&record.event)))
}

fn is_refused(scenario: &Scenario, state: &State) -> bool {
    !scenario.may_run(&state.world, false)
}
