//! Dead letters: records that could not be handled, kept whole beside the reason.
//!
//! Guarantees: a dead letter and the outbox row that publishes it are written in one commit; a page is served by the
//! index on time, newest or oldest first, however many dead letters there are; the result of a replay and the row that
//! records it are written in one transaction, which is the caller's. Deliberately absent: removing dead letters.

mod insert;
mod list;
mod replays;

pub use insert::{NewDeadLetter, insert};
pub use list::{DeadLetter, DeadLetterFilter, DeadLetterRecord, find, newest, now, oldest_ids, record};
pub use replays::{Replay, insert_replay, lock, replays, requeue};
