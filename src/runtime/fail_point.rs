//! Places where a fault test may end or freeze the process, so that a crash at the worst moment is not left to chance.
//!
//! `LEDGER_FAIL_POINT=relay/published` ends the process, as `kill -9` does, the first time it gets there;
//! `relay/published@3` the third time; `relay/published:stop` freezes it there, as `kill -STOP` does, until somebody
//! sends SIGCONT; `serve/committed:panic` panics there, as a bug does; `consume-risk/scoring=boom` waits for an event
//! of that description. Without the variable a point costs one load of memory, so the points are in every build and
//! what is tested is what is shipped. A value that names no point is refused at start. Never set it where the work
//! matters.

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

/// Every point there is, in the order in which an event meets them.
pub const FAIL_POINTS: [&str; 11] = [
    // A group is committed, nobody is answered.
    "serve/committed",
    // Rows are read, nothing is published.
    "relay/read",
    // The broker has acknowledged, the rows are still in the outbox.
    "relay/published",
    // The rows are gone.
    "relay/removed",
    // A try is noted and committed, nothing is assessed.
    "consume-risk/noted",
    // An event is about to be scored.
    "consume-risk/scoring",
    // A batch is assessed, nothing is written.
    "consume-risk/assessed",
    // In the transaction that writes results and position, before its commit.
    "consume-risk/writing",
    // Results and position are committed, nothing in memory knows.
    "consume-risk/committed",
    // In the database transaction that dead-letters a record, before its commit.
    "consume-risk/dead-lettering",
    // A record is dead-lettered.
    "consume-risk/dead-lettered",
];

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Killed,
    Frozen,
    Panics,
}

#[derive(Debug, PartialEq, Eq)]
struct Armed {
    point: String,
    /// Only where the work at hand is of this name.
    subject: Option<String>,
    /// The first, second … time.
    turn: u32,
    way: Way,
}

static ARMED: OnceLock<Option<(Armed, AtomicU32)>> = OnceLock::new();

/// Reads the variable. Call it once, at start: until then no point does anything.
pub fn arm() -> anyhow::Result<()> {
    let Ok(text) = std::env::var(VARIABLE) else {
        return Ok(());
    };
    let armed = parse(&text).with_context(|| format!("{VARIABLE}={text}"))?;
    tracing::warn!(point = armed.point, way = ?armed.way, turn = armed.turn, "this process fails on purpose");
    let _ = ARMED.set(Some((armed, AtomicU32::new(0))));
    Ok(())
}

/// Fails here, if asked to.
pub fn reach(point: &str) {
    reach_with(point, None);
}

/// Fails here, if asked to; `subject` names the work at hand.
pub fn reach_with(point: &str, subject: Option<&str>) {
    let Some(Some((armed, reached))) = ARMED.get() else { return };
    if armed.point != point || (armed.subject.is_some() && armed.subject.as_deref() != subject) {
        return;
    }
    // From that turn on: a process that was to end must not go on because it met the signal late.
    let turn = reached.fetch_add(1, Ordering::Relaxed) + 1;
    let fails = if armed.way == Way::Frozen { turn == armed.turn } else { turn >= armed.turn };
    if fails {
        fail(point, armed.way);
    }
}

#[expect(clippy::panic, reason = "to fail as a bug does is what it is for")]
fn fail(point: &str, way: Way) {
    let signal = match way {
        Way::Killed => Signal::SIGKILL,
        Way::Frozen => Signal::SIGSTOP,
        Way::Panics => panic!("{point} panics on purpose"),
    };
    if let Err(error) = kill(Pid::this(), signal) {
        tracing::error!(point, %error, "cannot fail");
    }
}

/// `POINT[=SUBJECT][@TURN][:kill|:stop|:panic]`
fn parse(text: &str) -> anyhow::Result<Armed> {
    let (rest, way) = match text.rsplit_once(':') {
        None => (text, Way::Killed),
        Some((rest, "kill")) => (rest, Way::Killed),
        Some((rest, "stop")) => (rest, Way::Frozen),
        Some((rest, "panic")) => (rest, Way::Panics),
        Some((_, other)) => bail!("{other} is none of kill, stop, panic"),
    };
    let (rest, turn) = match rest.rsplit_once('@') {
        None => (rest, 1),
        Some((rest, turn)) => (rest, turn.parse().with_context(|| format!("{turn} is not a number"))?),
    };
    let (point, subject) = match rest.split_once('=') {
        None => (rest, None),
        Some((point, subject)) => (point, Some(subject.to_owned())),
    };
    if !FAIL_POINTS.contains(&point) {
        bail!("{point} is none of {}", FAIL_POINTS.join(", "));
    }
    Ok(Armed { point: point.to_owned(), subject, turn, way })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_is_what_happens() {
        let armed = |point: &str, subject: Option<&str>, turn, way| Armed {
            point: point.into(),
            subject: subject.map(Into::into),
            turn,
            way,
        };
        let parsed = |text| parse(text).unwrap();
        assert_eq!(parsed("relay/read"), armed("relay/read", None, 1, Way::Killed));
        assert_eq!(parsed("relay/read@7:stop"), armed("relay/read", None, 7, Way::Frozen));
        assert_eq!(parsed("serve/committed@2:panic"), armed("serve/committed", None, 2, Way::Panics));
        let scoring = armed("consume-risk/scoring", Some("boom"), 1, Way::Killed);
        assert_eq!(parsed("consume-risk/scoring=boom:kill"), scoring);
        for wrong in ["relay/nowhere", "relay/read@x", "relay/read:pause", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
