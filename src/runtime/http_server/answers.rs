//! Counts the delivered and the answered requests of one connection.
//!
//! The connection and the service that answers its requests share an [`AnswerTracker`]. Both run on one thread, so
//! plain cells suffice. Other threads see only the [`Activity`].

use std::{
    cell::{Cell, RefCell},
    cmp::Ordering,
    rc::Rc,
    sync::Arc,
    task::{Context, Waker},
};

use actix_web::http::ConnectionType;

use super::open_connections::Activity;

/// Tells a connection which of its requests are answered. Cheap to clone.
#[derive(Clone)]
pub(super) struct AnswerTracker(Rc<TrackerState>);

struct TrackerState {
    activity: Arc<Activity>,
    /// Requests that were delivered to their last byte.
    delivered: Cell<u64>,
    answered: Cell<u64>,
    /// An answered request asked to close the connection.
    closes: Cell<bool>,
    /// The connection holds bytes of a later request.
    holds_bytes: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The bytes that a connection may deliver next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextBytes {
    /// Nothing: the delivered request is not answered yet.
    Nothing,
    /// The next request.
    Request,
    /// The rest of a request that was answered before its last byte arrived.
    RestOfRequest,
    /// Only the end of the stream: the last answered request asked to close the connection.
    End,
}

impl AnswerTracker {
    /// Creates the tracker of a connection without requests.
    pub(super) fn new(activity: Arc<Activity>) -> Self {
        Self(Rc::new(TrackerState {
            activity,
            delivered: Cell::default(),
            answered: Cell::default(),
            closes: Cell::default(),
            holds_bytes: Cell::default(),
            waker: RefCell::default(),
        }))
    }

    /// Marks the next request as in progress. The request counts as answered when the guard is dropped, which happens
    /// before the answer is written.
    pub(super) fn begin(&self, requested: ConnectionType) -> PendingAnswer {
        self.0.activity.set_busy();
        PendingAnswer { tracker: self.clone(), closes: requested == ConnectionType::Close }
    }

    /// Returns the bytes that the connection may deliver next.
    pub(super) fn next(&self) -> NextBytes {
        match self.0.delivered.get().cmp(&self.0.answered.get()) {
            Ordering::Greater => NextBytes::Nothing,
            Ordering::Equal if self.0.closes.get() => NextBytes::End,
            Ordering::Equal => NextBytes::Request,
            Ordering::Less => NextBytes::RestOfRequest,
        }
    }

    /// Counts a request that was delivered to its last byte.
    pub(super) fn count_delivered(&self) {
        self.0.delivered.update(|delivered| delivered + 1);
    }

    /// Notes whether the connection holds bytes of a later request.
    pub(super) fn set_holds_bytes(&self, holds_bytes: bool) {
        self.0.holds_bytes.set(holds_bytes);
    }

    /// Sets the task that the next answer wakes.
    pub(super) fn register_waker(&self, context: &Context<'_>) {
        let mut waker = self.0.waker.borrow_mut();
        if waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }
}

/// A request that is being answered.
pub(super) struct PendingAnswer {
    tracker: AnswerTracker,
    closes: bool,
}

impl Drop for PendingAnswer {
    fn drop(&mut self) {
        let state = &self.tracker.0;
        state.activity.set_idle();
        state.answered.update(|answered| answered + 1);
        if self.closes {
            state.closes.set(true);
        }
        // Either a later request can be delivered now, or the time limit for the rest of this one begins.
        if (state.holds_bytes.get() || state.delivered.get() < state.answered.get())
            && let Some(waker) = state.waker.take()
        {
            waker.wake();
        }
    }
}
