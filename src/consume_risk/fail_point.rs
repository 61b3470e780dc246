//! A way to die on purpose, for the test that a record which kills its consumer ends as a dead letter. Only debug
//! builds have it: in a release it is nothing.

use super::decode::Event;

/// Ends the process as a crash would, if `LEDGER_FAIL_POINT` is the event's description.
#[cfg(debug_assertions)]
pub(super) fn before_scoring(event: &Event) {
    use std::sync::OnceLock;
    static FATAL: OnceLock<Option<String>> = OnceLock::new();
    let fatal = FATAL.get_or_init(|| std::env::var("LEDGER_FAIL_POINT").ok());
    if fatal.is_some() && *fatal == event.created.description {
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn before_scoring(_event: &Event) {}
