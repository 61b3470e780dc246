//! Logs dead letters: one line for a burst of them, because another program may publish thousands of records that are no
//! events.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::repository::dead_letters::NewDeadLetter;

/// A burst that lasts longer is logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Dead letters in a row: how many, where, and the error of the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Burst {
    first_offset: i64,
    last_offset: i64,
    stage: &'static str,
    error: String,
    reasons: BTreeMap<&'static str, u64>,
}

impl Burst {
    /// Summarises the dead letters of one commit, which are in offset order. None: there are none.
    pub fn of(letters: &[NewDeadLetter]) -> Option<Self> {
        let (first, last) = (letters.first()?, letters.last()?);
        let mut reasons = BTreeMap::new();
        for letter in letters {
            *reasons.entry(letter.reason).or_default() += 1;
        }
        Some(Self {
            first_offset: first.offset,
            last_offset: last.offset,
            stage: first.stage,
            error: first.error.clone(),
            reasons,
        })
    }

    fn extend(&mut self, later: Self) {
        self.last_offset = later.last_offset;
        for (reason, count) in later.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
    }

    fn log(&self, partition: &dyn std::fmt::Display) {
        let Self { first_offset, last_offset, stage, error, reasons } = self;
        let count: u64 = reasons.values().sum();
        let reasons: Vec<String> =
            reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        tracing::error!(%partition, count, reasons = reasons.join(", "), first_offset, last_offset, stage, error,
            "records became dead letters; the error is that of the first one");
    }
}

/// The burst that is not logged yet.
#[derive(Debug, Default)]
pub(super) struct DeadLetterLog {
    open: Option<(Instant, Burst)>,
}

impl DeadLetterLog {
    /// Adds committed dead letters.
    pub fn add(&mut self, burst: Burst) {
        match &mut self.open {
            Some((_, open)) => open.extend(burst),
            None => self.open = Some((Instant::now(), burst)),
        }
    }

    /// Logs the burst, if it is over or has lasted for the interval.
    pub fn log(&mut self, partition: &dyn std::fmt::Display, is_over: bool) {
        let is_due = |(began_at, _): &mut (Instant, Burst)| is_over || began_at.elapsed() >= LOG_INTERVAL;
        if let Some((_, burst)) = self.open.take_if(is_due) {
            burst.log(partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::Headers;

    fn letter(offset: i64, reason: &'static str) -> NewDeadLetter {
        NewDeadLetter {
            id: Uuid::nil(),
            offset,
            leader_epoch: None,
            key: None,
            value: None,
            headers: Headers::default(),
            stage: "decode",
            reason,
            error: format!("error {offset}"),
            attempts: 1,
            event_id: None,
            outgoing_headers: Headers::default(),
        }
    }

    #[test]
    fn the_dead_letters_of_several_commits_are_one_burst() {
        assert_eq!(Burst::of(&[]), None);
        let mut log = DeadLetterLog::default();
        log.add(Burst::of(&[letter(7, "no_key"), letter(8, "undecodable")]).expect("some"));
        log.add(Burst::of(&[letter(9, "no_key")]).expect("some"));
        log.log(&"p", false);
        let (_, burst) = log.open.clone().expect("not over");
        assert_eq!((burst.first_offset, burst.last_offset, &*burst.error), (7, 9, "error 7"));
        assert_eq!(burst.reasons, BTreeMap::from([("no_key", 2), ("undecodable", 1)]));
        log.log(&"p", true);
        assert!(log.open.is_none());
    }
}
