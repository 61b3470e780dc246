//! The database's clock as this process knows it, and the check of this machine's clock against it.
//!
//! Guarantees:
//!
//! - The moments of transactions, assessments and records come from here. So a wrong clock of this machine spoils none.
//! - A difference of more than [`TOLERANCE`] is logged once, shows in `/readyz` and in a metric, and ends by itself.
//!
//! Deliberately absent: trust. The statement that writes transactions compares their moment with the clock of its
//! server.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};

use super::wall_clock;
use crate::repository::{ClockEstimate, ClockReading};

/// The largest difference between the two clocks with which a role is ready.
const TOLERANCE: TimeDelta = TimeDelta::seconds(1);
/// A reading that took longer says too little about the difference.
const READING_TIME_MAX: Duration = Duration::from_millis(500);
/// The shortest time between two comparisons. A busy writer makes thousands of readings a second.
const COMPARE_INTERVAL: Duration = Duration::from_millis(250);
/// An older comparison says nothing about now, and is not reported.
const COMPARISON_AGE_MAX: Duration = Duration::from_secs(30);

/// The database's clock. Cheap to clone; all clones share one state.
#[derive(Clone, Default, Debug)]
pub struct DatabaseClock(Arc<Mutex<State>>);

#[derive(Default, Debug)]
struct State {
    estimate: Option<ClockEstimate>,
    compared_at: Option<Instant>,
    /// How far this machine's clock was ahead at the last comparison.
    offset: TimeDelta,
}

impl DatabaseClock {
    /// Returns the time by the database's clock. Before the first reading, which every command makes when it connects,
    /// it is this machine's time.
    pub fn now(&self) -> DateTime<Utc> {
        self.state().estimate.map_or_else(wall_clock, |estimate| estimate.now())
    }

    /// Adopts a reading, and compares this machine's clock with it.
    pub fn observe(&self, reading: ClockReading) {
        let mut state = self.state();
        let corrected = state.estimate.map(|estimate| estimate.corrected(reading));
        state.estimate = Some(corrected.unwrap_or_else(|| ClockEstimate::new(reading)));
        let is_due = state.compared_at.is_none_or(|at| at.elapsed() >= COMPARE_INTERVAL);
        let is_precise = reading.answered.duration_since(reading.asked) <= READING_TIME_MAX;
        if is_due && is_precise {
            state.compared_at = Some(Instant::now());
            state.compare(offset(reading, wall_clock()));
        }
    }

    /// Returns why this machine's clock cannot be used, or None if it agrees with the database's clock.
    pub fn problem(&self) -> Option<String> {
        self.state().excess().map(describe)
    }

    /// Reports the difference of the last comparison as a gauge, or no value if that was too long ago.
    pub(super) fn report_offset(&self) {
        let state = self.state();
        let is_current = state.compared_at.is_some_and(|at| at.elapsed() <= COMPARISON_AGE_MAX);
        let offset = if is_current { state.offset.as_seconds_f64() } else { f64::NAN };
        metrics::gauge!("ledger_clock_offset_seconds").set(offset);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn compare(&mut self, offset: TimeDelta) {
        let before = self.excess();
        self.offset = offset;
        match (before, self.excess()) {
            (None, Some(offset)) => tracing::warn!(
                "{}; transactions, assessments and records get the time of the database",
                describe(offset)
            ),
            (Some(_), None) => {
                tracing::info!("the clock of this machine agrees with the clock of the database again");
            }
            _ => {}
        }
    }

    /// Returns how far this machine's clock is ahead, if that is more than the tolerance.
    fn excess(&self) -> Option<TimeDelta> {
        (self.offset.abs() > TOLERANCE).then_some(self.offset)
    }
}

/// Returns how far this machine's clock is ahead of the database's clock, at least. It is negative for a clock that is
/// behind.
fn offset(reading: ClockReading, wall: DateTime<Utc>) -> TimeDelta {
    let since = |moment: Instant| TimeDelta::from_std(moment.elapsed()).unwrap_or_default();
    let most = (wall - reading.shown) - since(reading.answered);
    let least = (wall - reading.shown) - since(reading.asked);
    TimeDelta::zero().clamp(least, most.max(least))
}

fn describe(offset: TimeDelta) -> String {
    let direction = if offset > TimeDelta::zero() { "ahead of" } else { "behind" };
    // Whole seconds from two seconds on, so that the text is short and steady.
    let millis = u64::try_from(offset.abs().num_milliseconds()).unwrap_or_default();
    let millis = if millis > 2_000 { (millis + 500) / 1_000 * 1_000 } else { millis };
    format!(
        "the clock of this machine is {} {direction} the clock of the database (more than {}): synchronise the clocks, \
         for example with NTP",
        humantime::format_duration(Duration::from_millis(millis)),
        humantime::format_duration(TOLERANCE.to_std().unwrap_or_default())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(wall: DateTime<Utc>, ahead: TimeDelta) -> ClockReading {
        let now = Instant::now();
        ClockReading { shown: wall - ahead, asked: now, answered: now }
    }

    #[test]
    fn the_offset_has_the_sign_of_the_clock_of_this_machine_and_slow_readings_excuse_it() {
        let wall = wall_clock();
        for seconds in [-40, 3, 2_592_000] {
            let found = offset(reading(wall, TimeDelta::seconds(seconds)), wall);
            assert!((found - TimeDelta::seconds(seconds)).abs() < TimeDelta::milliseconds(500), "{found}");
        }
        let now = Instant::now();
        let slow = ClockReading {
            shown: wall - TimeDelta::seconds(3),
            asked: now - Duration::from_secs(4),
            answered: now,
        };
        assert_eq!(offset(slow, wall), TimeDelta::zero(), "the answer may be that old");
    }

    #[test]
    fn a_difference_is_a_problem_until_it_ends() {
        let clock = DatabaseClock::default();
        let compare = |offset| clock.state().compare(offset);
        compare(TimeDelta::milliseconds(-900));
        assert_eq!(clock.problem(), None);
        compare(TimeDelta::days(30));
        assert!(
            clock.problem().is_some_and(|text| text.contains("is 30days ahead of the clock of the database"))
        );
        compare(TimeDelta::milliseconds(-1_250));
        assert!(clock.problem().is_some_and(|text| text.contains("is 1s 250ms behind the clock")));
        compare(TimeDelta::zero());
        assert_eq!(clock.problem(), None);
    }

    #[test]
    fn the_time_is_the_time_of_the_database_after_the_first_reading() {
        let clock = DatabaseClock::default();
        assert!((clock.now() - wall_clock()).abs() < TimeDelta::minutes(1));
        clock.observe(reading(wall_clock(), TimeDelta::days(30)));
        let behind = wall_clock() - clock.now();
        assert!((behind - TimeDelta::days(30)).abs() < TimeDelta::minutes(1), "{behind}");
    }
}
