//! Dead letters: records that were given up, kept whole with the reason.
//!
//! Guarantees:
//! - A dead letter and the outbox row that publishes it are written in one commit.
//! - A page is read from the index on time, newest or oldest first, however many dead letters there are.
//! - The result of a replay and the row that records it are written in one database transaction, the caller's.
//!
//! Deliberately absent: the removal of dead letters.

mod dismiss;
mod groups;
mod insert;
mod list;
mod replays;

pub use dismiss::{dismiss, existing};
pub use groups::groups;
pub use insert::{NewDeadLetter, insert, leave_all_logs, leave_log};
pub use list::{DeadLetter, DeadLetterFilter, DeadLetterRecord, find, newest, now, oldest_ids, record};
pub use replays::{Replay, insert_replay, lock, replays, requeue};
