//! Durations on the command line: `30s`, `5m`, `1h 30m`. They have a limit, so that a time plus a
//! duration cannot overflow.

use std::time::Duration;

const DAYS_MAX: u64 = 366;
const MAX: Duration = Duration::from_secs(DAYS_MAX * 24 * 60 * 60);

/// Parses a duration from zero up to 366 days.
pub fn parse_time_span(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    Some(span).filter(|span| *span <= MAX).ok_or_else(|| format!("must be at most {DAYS_MAX} days"))
}

/// Parses a duration above zero, up to 366 days.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    let span = parse_time_span(text)?;
    Some(span).filter(|span| !span.is_zero()).ok_or_else(|| "must be more than zero".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_bounded() {
        assert_eq!(parse_time_span("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_time_span("0s"), Ok(Duration::ZERO));
        assert_eq!(parse_interval("366d"), Ok(MAX));
        for text in ["", "5", "-1s", "367d", "30000years", "99999999999999999999y"] {
            assert!(parse_time_span(text).is_err(), "{text}");
        }
        assert_eq!(parse_interval("0ms"), Err("must be more than zero".into()));
    }
}
