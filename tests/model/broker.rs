//! The broker of the model: the log of one partition as Kafka keeps it, and the faults of that log.

use ledger::broker::{BrokerError, LogOffset};
use uuid::Uuid;

use super::database::Event;

const TOPIC: &str = "transactions.v1";

/// A record of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub offset: i64,
    pub event: Event,
    pub leader_epoch: i32,
}

/// The log of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    pub id: Uuid,
    pub records: Vec<Record>,
    /// The first offset that retention has left.
    pub start: i64,
    /// The offset of the next record.
    pub end: i64,
    /// The leader epochs, each with its first offset.
    epochs: Vec<(i32, i64)>,
}

impl Log {
    /// Creates the log of a topic. Each topic has another id.
    pub fn new(id: u128) -> Self {
        Self { id: Uuid::from_u128(id), records: Vec::new(), start: 0, end: 0, epochs: vec![(1, 0)] }
    }

    /// Appends a record.
    pub fn append(&mut self, event: Event) {
        let leader_epoch = self.epochs.last().expect("an epoch").0;
        self.records.push(Record { offset: self.end, event, leader_epoch });
        self.end += 1;
    }

    /// Answers a fetch as Kafka does: compares the id of the topic, and the leader epoch of the record before the offset
    /// (KIP-320).
    pub fn fetch(&self, from: LogOffset, count_max: usize) -> Result<Vec<Record>, BrokerError> {
        let LogOffset { offset, log_id, leader_epoch } = from;
        let (topic, partition) = (TOPIC.to_owned(), 0);
        if log_id.is_some_and(|log_id| log_id != self.id) {
            let found = Some(self.id);
            return Err(BrokerError::LogReplaced { topic, partition, expected: log_id, found });
        }
        if let Some(epoch) = leader_epoch.filter(|_| log_id.is_some()) {
            let (known, end) = self.end_of_epoch(epoch);
            if known != Some(epoch) || end < offset {
                return Err(BrokerError::LogTruncated { topic, partition, offset, end });
            }
        }
        if !(self.start..=self.end).contains(&offset) {
            let (earliest, latest) = (self.start, self.end);
            return Err(BrokerError::OffsetOutOfRange { topic, partition, offset, earliest, latest });
        }
        Ok(self.records.iter().filter(|record| record.offset >= offset).take(count_max).copied().collect())
    }

    /// Returns the last epoch up to `epoch`, and the offset at which the next epoch begins.
    fn end_of_epoch(&self, epoch: i32) -> (Option<i32>, i64) {
        let known = self.epochs.iter().rev().find(|(known, _)| *known <= epoch).map(|(known, _)| *known);
        let next = self.epochs.iter().find(|(known, _)| *known > epoch);
        (known, next.map_or(self.end, |(_, first)| *first))
    }

    /// Another leader takes over. An unclean election loses the last record. Returns the events that are gone.
    pub fn elect(&mut self, clean: bool) -> Vec<Event> {
        let epoch = self.epochs.last().expect("an epoch").0 + 1;
        let lost = if clean { None } else { self.records.pop() };
        if let Some(record) = lost {
            self.end = record.offset;
            self.epochs.retain(|(_, first)| *first < record.offset);
        }
        self.epochs.push((epoch, self.end));
        self.gone(lost)
    }

    /// Retention removes the first record.
    pub fn remove_front(&mut self) -> Vec<Event> {
        let first = (!self.records.is_empty()).then(|| self.records.remove(0));
        self.start = first.map_or(self.start, |first| first.offset + 1);
        self.gone(first)
    }

    /// Compaction keeps the last record of each key.
    pub fn compact(&mut self) -> Vec<Event> {
        let (kept, lost): (Vec<Record>, Vec<Record>) = self.records.iter().copied().partition(|record| {
            !self
                .records
                .iter()
                .any(|later| later.offset > record.offset && later.event.account == record.event.account)
        });
        self.records = kept;
        self.gone(lost)
    }

    /// The topic is deleted and created again.
    pub fn create_again(&mut self) -> Vec<Event> {
        let lost = std::mem::replace(self, Self::new(self.id.as_u128() + 1));
        lost.records.iter().map(|record| record.event).collect()
    }

    fn gone(&self, lost: impl IntoIterator<Item = Record>) -> Vec<Event> {
        let is_gone = |event: &Event| !self.records.iter().any(|record| record.event == *event);
        lost.into_iter().map(|record| record.event).filter(is_gone).collect()
    }
}
