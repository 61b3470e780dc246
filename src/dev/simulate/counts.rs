//! What is counted while the traffic runs, by all connections at once.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use uuid::Uuid;

use super::client::Failure;

/// Examples of what went wrong that are kept; all are counted.
const EXAMPLES_MAX: usize = 10;
/// Characters of one that are kept.
const EXAMPLE_LENGTH_MAX: usize = 1000;

/// Counters of one run.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// HTTP requests, each try.
    pub(super) sent: AtomicU64,
    /// New transactions, rightly acknowledged.
    pub(super) created: AtomicU64,
    /// Requests that were repeated on purpose and rightly replayed.
    pub(super) replayed: AtomicU64,
    /// Tries after a 503, a 429 or a lost connection.
    pub(super) retried: AtomicU64,
    /// Requests that were part of a suspicious pattern.
    pub(super) suspicious: AtomicU64,
    /// Given up without an answer.
    pub(super) unanswered: AtomicU64,
    /// Answers that must not be.
    pub(super) wrong: AtomicU64,
    examples: Mutex<Vec<String>>,
    acknowledged: Option<Mutex<Vec<Uuid>>>,
}

impl Counts {
    /// `keep_ids` keeps the id of every acknowledged transaction: 16 bytes each.
    pub(super) fn new(keep_ids: bool) -> Self {
        Self { acknowledged: keep_ids.then(Mutex::default), ..Self::default() }
    }

    pub(super) fn acknowledge(&self, id: Uuid) {
        if let Some(ids) = &self.acknowledged {
            ids.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        }
    }

    /// Counts what was not acknowledged.
    pub(super) fn failed(&self, failure: Failure) {
        match failure {
            Failure::Unanswered(what) => self.unanswered(what),
            Failure::Wrong(what) => self.wrong(what),
        }
    }

    pub(super) fn wrong(&self, what: String) {
        self.wrong.fetch_add(1, Ordering::Relaxed);
        self.example(what);
    }

    fn unanswered(&self, what: String) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        self.example(what);
    }

    /// Requests that were due and not sent, because those before them were not answered in time.
    pub(super) fn unsent(&self, requests: u64) {
        self.unanswered.fetch_add(requests, Ordering::Relaxed);
        self.example(format!("{requests} requests were due and never sent: the server fell too far behind"));
    }

    /// What a server says in its place may be of any length.
    fn example(&self, mut what: String) {
        if let Some((cut, _)) = what.char_indices().nth(EXAMPLE_LENGTH_MAX) {
            what.truncate(cut);
            what.push('…');
        }
        let mut examples = self.examples.lock().unwrap_or_else(PoisonError::into_inner);
        if examples.len() < EXAMPLES_MAX {
            examples.push(what);
        }
    }

    /// The first things that went wrong.
    pub(super) fn examples(&self) -> Vec<String> {
        self.examples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The acknowledged ids, if they were kept; they are kept no longer.
    pub(super) fn take_acknowledged(&self) -> Vec<Uuid> {
        let take =
            |ids: &Mutex<Vec<Uuid>>| std::mem::take(&mut *ids.lock().unwrap_or_else(PoisonError::into_inner));
        self.acknowledged.as_ref().map(take).unwrap_or_default()
    }
}
