//! Times as operators write them: a time, a day, or a duration ago.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

use crate::{domain::parse_moment, runtime::wall_clock};

/// Parses `2026-11-24T10:00:00Z`, `2026-11-24` (its beginning in UTC) or `2h` (ago, by this machine's clock: arguments are
/// parsed before there is a connection. A clock that differs from the database's is reported when the command connects).
pub(super) fn parse(text: &str) -> Result<DateTime<Utc>, String> {
    if let Some(moment) = parse_moment(text) {
        return Ok(moment);
    }
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Ok(day.and_time(NaiveTime::MIN).and_utc());
    }
    let ago = humantime::parse_duration(text).ok().and_then(|ago| TimeDelta::from_std(ago).ok());
    ago.and_then(|ago| wall_clock().checked_sub_signed(ago)).ok_or_else(|| {
        "expected a time (2026-11-24T10:00:00Z), a day (2026-11-24) or a duration ago (2h)".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_days_and_durations_are_parsed() {
        let moment = |text: &str| parse(text).expect(text);
        assert_eq!(moment("2026-11-24T12:00:00+02:00").to_rfc3339(), "2026-11-24T10:00:00+00:00");
        assert_eq!(moment("2026-11-24").to_rfc3339(), "2026-11-24T00:00:00+00:00");
        let ago = Utc::now() - moment("2h");
        assert!((7_199..7_260).contains(&ago.num_seconds()), "{ago}");
        for wrong in ["", "yesterday", "5", "-2h", "2026-13-01", "999999999999y"] {
            parse(wrong).expect_err(wrong);
        }
    }
}
