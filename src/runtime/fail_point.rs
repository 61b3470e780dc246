//! Points at which a fault test can kill, freeze or panic the process, so that it crashes at the worst moment.
//!
//! | `LEDGER_FAIL_POINT` | effect |
//! | --- | --- |
//! | `relay/published` | kills the process, like `kill -9`, when it reaches the point for the first time |
//! | `relay/published@3` | kills it the third time |
//! | `relay/published:stop` | freezes it, like `kill -STOP`, until it receives SIGCONT |
//! | `serve/committed:panic` | panics, like a bug |
//! | `consume-risk/scoring=boom` | kills it at the event whose description is `boom` |
//!
//! Without the variable a point costs one read of memory. The points are therefore in every build, and the tests run
//! the released code. A value that names no known point is refused at start. Never set the variable in production.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const VARIABLE: &str = "LEDGER_FAIL_POINT";

/// All points, in the order of the event flow.
pub const FAIL_POINTS: [&str; 12] = [
    // A group is committed, and no request is answered yet.
    "serve/committed",
    // Rows are read, and none is published yet.
    "relay/read",
    // The broker has acknowledged the records, and the rows are still in the outbox.
    "relay/published",
    // The rows are deleted from the outbox.
    "relay/removed",
    // An attempt is noted and committed, and nothing is assessed yet.
    "consume-risk/noted",
    // An event is about to be scored.
    "consume-risk/scoring",
    // A batch is assessed, and nothing is written yet.
    "consume-risk/assessed",
    // The database transaction has written results and position, and is not committed yet.
    "consume-risk/writing",
    // Results and position are committed, and the state in memory is not updated yet.
    "consume-risk/committed",
    // The database transaction has dead-lettered records, and is not committed yet.
    "consume-risk/dead-lettering",
    // The dead letters are committed.
    "consume-risk/dead-lettered",
    // Facts of some marks are committed.
    "aggregate/updated",
];

/// The effect of an armed point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Kill,
    Freeze,
    Panic,
}

#[derive(Debug, PartialEq, Eq)]
struct Armed {
    point: String,
    /// The name of the work to fail at. None: any work.
    subject: Option<String>,
    /// How often the process must reach the point: 1 is the first time.
    occurrence: u32,
    effect: Effect,
}

static ARMED: OnceLock<Option<(Armed, AtomicU32)>> = OnceLock::new();

/// Reads the variable. Call it once, at start. Before that, no point has an effect.
pub fn arm() -> anyhow::Result<()> {
    let Ok(text) = std::env::var(VARIABLE) else {
        return Ok(());
    };
    let armed = parse(&text).with_context(|| format!("{VARIABLE}={text}"))?;
    tracing::warn!(point = armed.point, effect = ?armed.effect, occurrence = armed.occurrence, "this process fails on purpose");
    let _ = ARMED.set(Some((armed, AtomicU32::new(0))));
    Ok(())
}

/// Fails if `point` is armed.
pub fn reach(point: &str) {
    reach_with(point, None);
}

/// Fails if `point` is armed for every subject or for this one. `subject` names the current work.
pub fn reach_with(point: &str, subject: Option<&str>) {
    let Some(Some((armed, reached))) = ARMED.get() else { return };
    if armed.point != point || (armed.subject.is_some() && armed.subject.as_deref() != subject) {
        return;
    }
    // A kill repeats at later occurrences, because another thread may get here before the signal arrives.
    let count = reached.fetch_add(1, Ordering::Relaxed) + 1;
    let fails = match armed.effect {
        Effect::Freeze => count == armed.occurrence,
        Effect::Kill | Effect::Panic => count >= armed.occurrence,
    };
    if fails {
        fail(point, armed.effect);
    }
}

#[expect(clippy::panic, reason = "the point imitates a bug")]
fn fail(point: &str, effect: Effect) {
    let signal = match effect {
        Effect::Kill => Signal::SIGKILL,
        Effect::Freeze => Signal::SIGSTOP,
        Effect::Panic => panic!("{point} panics on purpose"),
    };
    if let Err(error) = kill(Pid::this(), signal) {
        tracing::error!(point, %error, "cannot send the signal");
    }
}

/// Parses `POINT[=SUBJECT][@OCCURRENCE][:kill|:stop|:panic]`.
fn parse(text: &str) -> anyhow::Result<Armed> {
    let (rest, effect) = match text.rsplit_once(':') {
        None => (text, Effect::Kill),
        Some((rest, "kill")) => (rest, Effect::Kill),
        Some((rest, "stop")) => (rest, Effect::Freeze),
        Some((rest, "panic")) => (rest, Effect::Panic),
        Some((_, other)) => bail!("{other} is not one of kill, stop, panic"),
    };
    let (rest, occurrence) = match rest.rsplit_once('@') {
        None => (rest, 1),
        Some((rest, number)) => (rest, number.parse().with_context(|| format!("{number} is not a number"))?),
    };
    let (point, subject) = match rest.split_once('=') {
        None => (rest, None),
        Some((point, subject)) => (point, Some(subject.to_owned())),
    };
    if !FAIL_POINTS.contains(&point) {
        bail!("{point} is not one of {}", FAIL_POINTS.join(", "));
    }
    Ok(Armed { point: point.to_owned(), subject, occurrence, effect })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_subjects_occurrences_and_effects_are_parsed() {
        let armed = |point: &str, subject: Option<&str>, occurrence, effect| Armed {
            point: point.into(),
            subject: subject.map(Into::into),
            occurrence,
            effect,
        };
        let parsed = |text| parse(text).unwrap();
        assert_eq!(parsed("relay/read"), armed("relay/read", None, 1, Effect::Kill));
        assert_eq!(parsed("relay/read@7:stop"), armed("relay/read", None, 7, Effect::Freeze));
        assert_eq!(parsed("serve/committed@2:panic"), armed("serve/committed", None, 2, Effect::Panic));
        let scoring = armed("consume-risk/scoring", Some("boom"), 1, Effect::Kill);
        assert_eq!(parsed("consume-risk/scoring=boom:kill"), scoring);
        for wrong in ["relay/nowhere", "relay/read@x", "relay/read:pause", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
