//! The clock of the database. It dates everything that the ledger stores, because the clocks of the instances differ.
//!
//! A process does not ask for the time before each group. It remembers what the clock showed, and adds the time that has
//! passed since then by its own monotonic clock, which cannot be set. So the clock of its machine may be wrong, or jump,
//! without effect.

use std::time::Instant;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use diesel_async::RunQueryDsl;

use super::{Connection, RepositoryError, functions::clock_timestamp};

/// A moment that the database's clock showed at some time between two moments of this process.
#[derive(Debug, Clone, Copy)]
pub struct ClockReading {
    /// The moment.
    pub shown: DateTime<Utc>,
    /// Before the statement was sent.
    pub asked: Instant,
    /// After the answer arrived.
    pub answered: Instant,
}

/// Reads the database's clock.
pub async fn read_clock(connection: &mut Connection) -> Result<ClockReading, RepositoryError> {
    let asked = Instant::now();
    let shown = diesel::select(clock_timestamp()).get_result(connection).await?;
    Ok(ClockReading { shown, asked, answered: Instant::now() })
}

/// An estimate of the database's clock.
#[derive(Debug, Clone, Copy)]
pub struct ClockEstimate {
    shown: DateTime<Utc>,
    at: Instant,
}

impl ClockEstimate {
    /// Starts with one reading. The estimate is late by the time that the answer took, and never ahead.
    pub fn new(reading: ClockReading) -> Self {
        Self { shown: reading.shown, at: reading.answered }
    }

    /// Returns the estimated time, to the microsecond, which is PostgreSQL's precision.
    pub fn now(&self) -> DateTime<Utc> {
        self.at(Instant::now()).trunc_subsecs(6)
    }

    /// Moves the estimate into the range that another reading allows, and no further: most readings change nothing.
    #[must_use]
    pub fn corrected(self, reading: ClockReading) -> Self {
        let earliest = reading.shown;
        let latest = later(earliest, reading.answered.duration_since(reading.asked));
        Self { shown: self.at(reading.answered).clamp(earliest, latest), at: reading.answered }
    }

    fn at(&self, moment: Instant) -> DateTime<Utc> {
        later(self.shown, moment.saturating_duration_since(self.at))
    }
}

fn later(moment: DateTime<Utc>, by: std::time::Duration) -> DateTime<Utc> {
    TimeDelta::from_std(by).ok().and_then(|by| moment.checked_add_signed(by)).unwrap_or(moment)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A reading that took 10 ms and whose answer arrived `seconds` after `start`.
    fn reading(start: Instant, seconds: u32, shown: i64) -> ClockReading {
        let answered = start + SECOND * seconds;
        let shown = DateTime::from_timestamp(shown, 0).expect("in range");
        ClockReading { shown, asked: answered - Duration::from_millis(10), answered }
    }

    fn millis(estimate: ClockEstimate, at: Instant) -> i64 {
        estimate.at(at).timestamp_millis()
    }

    #[test]
    fn the_estimate_continues_from_the_last_reading() {
        let start = Instant::now() + SECOND * 60;
        let estimate = ClockEstimate::new(reading(start, 0, 1_000));
        assert_eq!(millis(estimate, start + SECOND * 5), 1_005_000);
        assert_eq!(millis(estimate, start - SECOND), 1_000_000, "never before the reading");
    }

    #[test]
    fn a_reading_that_agrees_changes_nothing_and_a_clock_that_was_set_is_followed_both_ways() {
        let start = Instant::now() + SECOND * 60;
        let estimate = ClockEstimate::new(reading(start, 0, 1_000));
        for (shown, expected) in [(1_005, 1_005_000), (4_000, 4_000_000), (500, 500_010)] {
            let corrected = estimate.corrected(reading(start, 5, shown));
            assert_eq!(millis(corrected, start + SECOND * 5), expected, "{shown}");
        }
    }

    /// The answer to a group may be late, for example after a wait for a lock. It says little about the time.
    #[test]
    fn a_late_answer_does_not_move_a_better_estimate() {
        let start = Instant::now() + SECOND * 60;
        let estimate = ClockEstimate::new(reading(start, 0, 1_000));
        let late = ClockReading { asked: start + SECOND, ..reading(start, 5, 1_002) };
        assert_eq!(millis(estimate.corrected(late), start + SECOND * 5), 1_005_000);
    }
}
