//! Parses and formats moments: RFC 3339 in UTC with six fractional digits, always of the same length. Every event and
//! every response contains one, so it is formatted by hand, for speed.

use chrono::{DateTime, Datelike, SecondsFormat, TimeDelta, Timelike, Utc};

/// Formats a moment as `2026-01-31T12:00:00.000001Z`, truncated to the microsecond.
pub fn format_moment(at: DateTime<Utc>) -> String {
    // chrono formats leap seconds and years of more than four digits. The ledger stores neither.
    digits_of(at).unwrap_or_else(|| at.to_rfc3339_opts(SecondsFormat::Micros, true))
}

fn digits_of(at: DateTime<Utc>) -> Option<String> {
    let year = u32::try_from(at.year()).ok().filter(|year| *year <= 9999)?;
    let micros = Some(at.nanosecond() / 1000).filter(|micros| *micros < 1_000_000)?;
    let [y1, y2, y3, y4] = digits(year);
    let [m1, m2] = digits(at.month());
    let [d1, d2] = digits(at.day());
    let [h1, h2] = digits(at.hour());
    let [i1, i2] = digits(at.minute());
    let [s1, s2] = digits(at.second());
    let [f1, f2, f3, f4, f5, f6] = digits(micros);
    let text = [
        y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', i1, i2, b':', s1, s2, b'.', f1, f2,
        f3, f4, f5, f6, b'Z',
    ];
    String::from_utf8(text.into()).ok()
}

/// Parses an RFC 3339 moment with any offset.
pub fn parse_moment(text: &str) -> Option<DateTime<Utc>> {
    without_leap_second(DateTime::parse_from_rfc3339(text).ok()?.to_utc())
}

/// Replaces a leap second by the following second, as PostgreSQL does. Returns None for a leap second that is not at the
/// end of a day.
pub fn without_leap_second(at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    const NANOS: u32 = 1_000_000_000;
    let Some(nanos) = at.nanosecond().checked_sub(NANOS) else { return Some(at) };
    let ends_a_day = (at.hour(), at.minute(), at.second()) == (23, 59, 59);
    let second = Some(at).filter(|_| ends_a_day)?.with_nanosecond(nanos)?;
    second.checked_add_signed(TimeDelta::seconds(1))
}

/// Returns the last `N` decimal digits.
fn digits<const N: usize>(mut number: u32) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit += u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn as_chrono_prints(at: DateTime<Utc>) -> String {
        at.to_rfc3339_opts(SecondsFormat::Micros, true)
    }

    #[test]
    fn the_length_does_not_depend_on_the_fraction_and_the_edges_are_right() {
        let moment = |text: &str| text.parse::<DateTime<Utc>>().expect("a moment");
        assert_eq!(format_moment(moment("2026-01-31T12:00:00Z")), "2026-01-31T12:00:00.000000Z");
        assert_eq!(format_moment(moment("2026-01-31T12:00:00.1204569Z")), "2026-01-31T12:00:00.120456Z");
        for text in ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2016-12-31T23:59:60.5Z"] {
            assert_eq!(format_moment(moment(text)), as_chrono_prints(moment(text)), "{text}");
        }
        for at in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
            assert_eq!(format_moment(at), as_chrono_prints(at));
        }
    }

    #[test]
    fn a_leap_second_becomes_the_following_second() {
        let read = |text: &str| parse_moment(text).map(format_moment);
        let next_day = Some("2017-01-01T00:00:00.500000Z".to_owned());
        assert_eq!(read("2016-12-31T23:59:60.5Z"), next_day);
        assert_eq!(read("2017-01-01T01:59:60.5+02:00"), next_day);
        assert_eq!(read("2026-01-01T12:00:60Z"), None, "leap seconds end a day");
        assert_eq!(read("2016-12-31T23:59:59.999Z").as_deref(), Some("2016-12-31T23:59:59.999000Z"));
    }

    proptest! {
        /// The years 0 to 9999.
        #[test]
        fn the_text_equals_chronos(seconds in -62_167_219_200_i64..253_402_300_800, nanos in 0_u32..1_000_000_000) {
            let at = DateTime::from_timestamp(seconds, nanos).expect("in range");
            prop_assert_eq!(format_moment(at), as_chrono_prints(at));
        }
    }
}
