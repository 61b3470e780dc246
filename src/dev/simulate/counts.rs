//! The counters of a run, and examples of what went wrong. All connections share one thread, so plain cells are enough.

use std::cell::{Cell, RefCell};

use uuid::Uuid;

/// Problems that are kept as examples. All are counted.
const EXAMPLES_MAX: usize = 10;
/// An example is cut to this many characters.
const EXAMPLE_LENGTH_MAX: usize = 1000;

/// The reason why a request has no acknowledged transaction.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer in time. The server may have carried out the request.
    Unanswered(String),
    /// An answer that the API must not give.
    Wrong(String),
}

/// A counter.
#[derive(Debug, Default)]
pub(super) struct Count(Cell<u64>);

impl Count {
    pub(super) fn increment(&self) {
        self.add(1);
    }

    fn add(&self, more: u64) {
        self.0.set(self.0.get() + more);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.get()
    }
}

/// The counters of one run.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// HTTP requests, each attempt.
    pub(super) sent: Count,
    /// New transactions, correctly acknowledged.
    pub(super) created: Count,
    /// Requests that were sent again on purpose and correctly replayed.
    pub(super) replayed: Count,
    /// Attempts after a 503, a 429, a 408 or a lost connection.
    pub(super) retried: Count,
    /// Requests that were steps of a suspicious scheme.
    pub(super) suspicious: Count,
    /// Requests that were given up without an answer.
    pub(super) unanswered: Count,
    /// Answers that the API must not give.
    pub(super) wrong: Count,
    examples: RefCell<Vec<String>>,
    acknowledged: Option<RefCell<Vec<Uuid>>>,
}

impl Counts {
    /// Creates the counters. With `keep_ids`, the id of every acknowledged transaction is kept: 16 bytes each.
    pub(super) fn new(keep_ids: bool) -> Self {
        Self { acknowledged: keep_ids.then(RefCell::default), ..Self::default() }
    }

    pub(super) fn acknowledge(&self, id: Uuid) {
        if let Some(ids) = &self.acknowledged {
            ids.borrow_mut().push(id);
        }
    }

    pub(super) fn count_failure(&self, failure: Failure) {
        match failure {
            Failure::Unanswered(problem) => {
                self.unanswered.increment();
                self.keep_example(problem);
            }
            Failure::Wrong(problem) => self.count_wrong(problem),
        }
    }

    pub(super) fn count_wrong(&self, problem: String) {
        self.wrong.increment();
        self.keep_example(problem);
    }

    /// Counts requests that were due but never sent, because the server answered earlier requests too late.
    pub(super) fn count_unsent(&self, requests: u64) {
        self.unanswered.add(requests);
        self.keep_example(format!(
            "{requests} requests were due and never sent: the server fell too far behind"
        ));
    }

    /// Keeps the first problems, cut to a bounded length: they quote the answers of another server.
    fn keep_example(&self, mut problem: String) {
        if let Some((cut, _)) = problem.char_indices().nth(EXAMPLE_LENGTH_MAX) {
            problem.truncate(cut);
            problem.push('…');
        }
        let mut examples = self.examples.borrow_mut();
        if examples.len() < EXAMPLES_MAX {
            examples.push(problem);
        }
    }

    /// Returns the first problems.
    pub(super) fn examples(&self) -> Vec<String> {
        self.examples.borrow().clone()
    }

    /// Returns the acknowledged ids, if they were kept, and forgets them.
    pub(super) fn take_acknowledged(&self) -> Vec<Uuid> {
        self.acknowledged.as_ref().map(RefCell::take).unwrap_or_default()
    }
}
