//! The clock of this machine. It may be wrong: no moment that is stored or published comes from it (see
//! [`DatabaseClock`](super::DatabaseClock)). `tests/layering.rs` refuses any other reading of it.
//!
//! A fault test sets it wrong with `LEDGER_CLOCK_OFFSET`:
//!
//! | value | effect |
//! | --- | --- |
//! | `30days` | the clock is 30 days ahead |
//! | `-2h` | the clock is two hours behind |
//! | `30days@5s` | five seconds after the start, the clock jumps 30 days ahead |
//!
//! Never set the variable in production.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};

const VARIABLE: &str = "LEDGER_CLOCK_OFFSET";

/// A clock that is set wrong on purpose.
#[derive(Debug, PartialEq, Eq)]
struct WrongClock {
    offset: TimeDelta,
    /// How long after the start the clock jumps.
    after: Duration,
}

static WRONG: OnceLock<(WrongClock, Instant)> = OnceLock::new();

/// Reads the variable. Call it once, at start.
pub fn arm_wall_clock() -> anyhow::Result<()> {
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(()) };
    let wrong = parse(&text).with_context(|| format!("{VARIABLE}={text}"))?;
    tracing::warn!(offset = text, "the clock of this process is wrong on purpose");
    let _ = WRONG.set((wrong, Instant::now()));
    Ok(())
}

/// Returns the time by the clock of this machine.
pub fn wall_clock() -> DateTime<Utc> {
    let now = Utc::now();
    match WRONG.get() {
        Some((wrong, started)) if started.elapsed() >= wrong.after => {
            now.checked_add_signed(wrong.offset).unwrap_or(now)
        }
        _ => now,
    }
}

/// Parses `[-]DURATION[@DURATION]`.
fn parse(text: &str) -> anyhow::Result<WrongClock> {
    let (offset, after) = text.split_once('@').unwrap_or((text, "0s"));
    let (is_behind, size) = offset.strip_prefix('-').map_or((false, offset), |size| (true, size));
    let size = TimeDelta::from_std(humantime::parse_duration(size)?)?;
    Ok(WrongClock { offset: if is_behind { -size } else { size }, after: humantime::parse_duration(after)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_and_jumps_are_parsed() {
        let wrong = |offset, after| WrongClock { offset, after: Duration::from_secs(after) };
        assert_eq!(parse("30days").unwrap(), wrong(TimeDelta::days(30), 0));
        assert_eq!(parse("-2h@5s").unwrap(), wrong(TimeDelta::hours(-2), 5));
        for text in ["", "30", "+2h", "2h@", "2h@-1s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
