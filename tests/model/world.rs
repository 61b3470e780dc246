//! The state that the processes of the model share: the database, the topic, the network, and the history that the
//! properties need.

use std::collections::BTreeSet;

use super::{
    broker::Log,
    database::{Database, Event},
};

/// Past events that the properties need and no process sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// Each event with the partition to which it was published first, in the order of publication.
    pub published: Vec<(i32, Event)>,
    /// Events that the broker has lost.
    pub lost: BTreeSet<Event>,
    /// An event that a consumer passed although no consumer has handled it.
    pub skipped: Option<Event>,
    /// Whether a process has written under a lease that another one had taken.
    pub is_unfenced: bool,
    /// Whether a position has moved back by itself.
    pub moved_back: bool,
    /// Whether the outbox's sequence was set back under running roles.
    pub sequence_was_set_back: bool,
    /// Whether the broker has lost records or a topic.
    pub log_has_changed: bool,
}

/// Database, broker and network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub database: Database,
    /// Partition 0, which the consumers read.
    pub log: Log,
    /// Partition 1, if it was added.
    pub added_log: Vec<Event>,
    pub partitions: i32,
    /// Requests that arrive later than their relay has given them up.
    pub late: Vec<Vec<(i32, Event)>>,
    pub writers_are_up: bool,
    pub history: History,
}

impl World {
    pub fn new() -> Self {
        Self {
            database: Database::default(),
            log: Log::new(1),
            added_log: Vec::new(),
            partitions: 1,
            late: Vec::new(),
            writers_are_up: true,
            history: History::default(),
        }
    }

    /// The broker appends a request.
    pub fn publish(&mut self, events: &[(i32, Event)]) {
        for (partition, event) in events {
            match partition {
                0 => self.log.append(*event),
                _ => self.added_log.push(*event),
            }
            if !self.history.published.iter().any(|(_, known)| known == event) {
                self.history.published.push((*partition, *event));
            }
        }
    }

    /// Notes what a fault of the broker has destroyed.
    pub fn lose(&mut self, events: Vec<Event>) {
        self.history.lost.extend(events);
        self.history.log_has_changed = true;
    }

    /// Returns whether the event is in a topic of the recorded broker.
    pub fn is_in_topic(&self, event: &Event) -> bool {
        self.log.records.iter().any(|record| record.event == *event) || self.added_log.contains(event)
    }
}
