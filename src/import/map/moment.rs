//! Reads dates and times in other formats and time zones, and numbers that count from a moment.

use std::collections::BTreeMap;

use chrono::{
    DateTime, FixedOffset, MappedLocalTime, NaiveDateTime, NaiveTime, SecondsFormat, TimeDelta, TimeZone,
    Utc,
    format::{Item, Parsed, StrftimeItems, parse},
};
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, de};

use super::template::Template;
use crate::domain::parse_moment;

/// The table `created_at` of a map.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Table")]
pub(super) struct CreatedAt {
    pub(super) value: Template,
    reading: Reading,
}

/// How to read the text of `value`.
#[derive(Debug, Clone)]
enum Reading {
    Local { formats: Vec<Format>, zone: Option<Template>, zones: BTreeMap<String, Zone> },
    Counted { unit: Unit, since: DateTime<Utc> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    value: Template,
    #[serde(default)]
    formats: Vec<Format>,
    zone: Option<Template>,
    #[serde(default)]
    zones: BTreeMap<String, Zone>,
    unit: Option<Unit>,
    since: Option<Moment>,
}

impl TryFrom<Table> for CreatedAt {
    type Error = &'static str;

    fn try_from(table: Table) -> Result<Self, Self::Error> {
        let Table { value, formats, zone, zones, unit, since } = table;
        if let Some(constant) = zone.as_ref().and_then(Template::constant)
            && Zone::parse(constant).is_none()
            && !zones.contains_key(constant)
        {
            return Err("`zone` must be a time zone such as \"Europe/Berlin\", \"UTC\" or \"-08:00\"");
        }
        let has_all_offsets = formats.iter().all(|format| format.has_offset);
        let reading = match (unit, formats.is_empty()) {
            (None, false) if zone.is_some() || has_all_offsets => Reading::Local { formats, zone, zones },
            (None, false) => return Err("`zone` is missing, such as zone = \"Europe/Berlin\" or \"UTC\""),
            (Some(unit), true) if zone.is_none() => {
                Reading::Counted { unit, since: since.map_or(DateTime::UNIX_EPOCH, |since| since.0) }
            }
            _ => return Err("needs either `formats` and `zone`, or `unit` (and `since`)"),
        };
        Ok(Self { value, reading })
    }
}

impl CreatedAt {
    /// Returns the templates of the table.
    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        let zone = match &self.reading {
            Reading::Local { zone, .. } => zone.as_ref(),
            Reading::Counted { .. } => None,
        };
        zone.into_iter().chain([&self.value])
    }

    /// Returns the moment of one row in RFC 3339, or an empty text if it has none.
    pub(super) fn render<'a>(&self, cell: &impl Fn(&str) -> &'a str) -> Result<String, String> {
        let text = self.value.render(cell);
        let text = text.trim();
        if text.is_empty() {
            return Ok(String::new());
        }
        let at = match &self.reading {
            Reading::Counted { unit, since } => counted(text, *unit, *since)?,
            Reading::Local { formats, zone, zones } => {
                let zone = zone.as_ref().map(|zone| zone.render(cell));
                local(text, formats, zone.as_deref(), zones)?
            }
        };
        Ok(at.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

fn counted(text: &str, unit: Unit, since: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    let count = text.parse::<i64>().ok().and_then(|count| count.checked_mul(unit.milliseconds()));
    let at = count.and_then(TimeDelta::try_milliseconds).and_then(|time| since.checked_add_signed(time));
    at.ok_or_else(|| format!("has {text:?}, which is no number of {unit:?}s").to_lowercase())
}

fn local(
    text: &str,
    formats: &[Format],
    zone: Option<&str>,
    zones: &BTreeMap<String, Zone>,
) -> Result<DateTime<Utc>, String> {
    let parsed = formats.iter().find_map(|format| format.parse(text));
    let parsed = parsed.ok_or_else(|| {
        let formats: Vec<&str> = formats.iter().map(|format| format.text.as_str()).collect();
        format!("has {text:?}, which has not the format {}", formats.join(" or "))
    })?;
    if let Ok(at) = parsed.to_datetime() {
        return Ok(at.to_utc());
    }
    let name = zone.unwrap_or_default().trim();
    let zone = zones.get(name).copied().or_else(|| Zone::parse(name));
    let zone = zone.ok_or_else(|| {
        format!("has the time zone {name:?}; name it in [created_at.zones], such as {name:?} = \"-08:00\"")
    })?;
    let (local, is_date) = match parsed.to_naive_datetime_with_offset(0) {
        Ok(local) => (local, false),
        Err(_) => (parsed.to_naive_date().map_err(|_| not_a_date(text))?.and_time(NaiveTime::MIN), true),
    };
    zone.first_moment(local, is_date)
        .ok_or_else(|| format!("has {text:?}, a time that the clocks of {name} skipped"))
}

fn not_a_date(text: &str) -> String {
    format!("has {text:?}, which is no date")
}

/// A format in the notation of `strftime`.
#[derive(Debug, Clone)]
struct Format {
    text: String,
    items: Vec<Item<'static>>,
    has_offset: bool,
}

impl Format {
    fn parse(&self, text: &str) -> Option<Parsed> {
        let mut parsed = Parsed::new();
        parse(&mut parsed, text, self.items.iter()).ok()?;
        parsed.to_naive_date().is_ok().then_some(parsed)
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let items = StrftimeItems::new(&text).parse_to_owned().map_err(|_| {
            de::Error::custom(format!("{text:?} is no date format such as \"%d.%m.%Y %H:%M:%S\""))
        })?;
        let has_offset =
            ["%z", "%:z", "%::z", "%:::z", "%#z", "%+"].iter().any(|offset| text.contains(offset));
        Ok(Self { text, items, has_offset })
    }
}

/// A time zone: a place with its rules, or a fixed offset.
#[derive(Debug, Clone, Copy)]
enum Zone {
    Place(Tz),
    Fixed(FixedOffset),
}

impl Zone {
    fn parse(text: &str) -> Option<Self> {
        let fixed = || text.parse::<FixedOffset>().ok().map(Self::Fixed);
        text.parse::<Tz>().ok().map(Self::Place).or_else(fixed)
    }

    /// Returns the first moment with this local time. Where the clocks skipped the beginning of a day, it is the first
    /// moment of the day.
    fn first_moment(self, local: NaiveDateTime, is_date: bool) -> Option<DateTime<Utc>> {
        const STEPS_OF_15_MINUTES: i32 = 12;
        let steps = if is_date { STEPS_OF_15_MINUTES } else { 0 };
        (0..=steps).find_map(|step| {
            let local = local.checked_add_signed(TimeDelta::minutes(15) * step)?;
            match self {
                Self::Place(place) => earliest(place.from_local_datetime(&local)),
                Self::Fixed(offset) => earliest(offset.from_local_datetime(&local)),
            }
        })
    }
}

fn earliest<Z: TimeZone>(moments: MappedLocalTime<DateTime<Z>>) -> Option<DateTime<Utc>> {
    moments.earliest().map(|at| at.to_utc())
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!("{text:?} is no time zone such as \"Europe/Berlin\" or \"-08:00\""))
        })
    }
}

/// The unit of a number that counts from a moment.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
}

impl Unit {
    fn milliseconds(self) -> i64 {
        match self {
            Self::Millisecond => 1,
            Self::Second => 1_000,
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Moment(DateTime<Utc>);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_moment(&text).map(Self).ok_or_else(|| {
            de::Error::custom(format!(
                "{text:?} is no timestamp in RFC 3339, such as \"2026-01-31T08:00:00Z\""
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(table: &str, cells: &[(&str, &str)]) -> Result<String, String> {
        let created_at: CreatedAt = toml::from_str(table).map_err(|error| error.message().to_owned())?;
        let cell =
            |heading: &str| cells.iter().find(|(name, _)| *name == heading).map_or("", |(_, text)| *text);
        created_at.render(&cell)
    }

    #[test]
    fn dates_and_times_are_read_in_their_zone() {
        for (format, zone, text, at) in [
            ("%d.%m.%y", "Europe/Berlin", "30.01.26", "2026-01-29T23:00:00Z"),
            ("%d.%m.%Y", "Europe/Berlin", "1.7.2026", "2026-06-30T22:00:00Z"),
            ("%d-%b-%y", "Asia/Kolkata", "5-Jul-17", "2017-07-04T18:30:00Z"),
            ("%m/%d/%Y %H:%M:%S", "-08:00", "01/31/2026 18:04:11", "2026-02-01T02:04:11Z"),
            ("%Y-%m-%d %H:%M:%S%.f", "UTC", "2026-01-31 22:10:07.5", "2026-01-31T22:10:07.500Z"),
            // The hour that occurs twice: the first one. The clocks of Beirut skip midnight.
            ("%d.%m.%Y %H:%M", "Europe/Berlin", "25.10.2026 02:30", "2026-10-25T00:30:00Z"),
            ("%d.%m.%Y", "Asia/Beirut", "29.03.2026", "2026-03-28T22:00:00Z"),
        ] {
            let table = format!("value = \"{{d}}\"\nformats = [\"%Y%m%d\", \"{format}\"]\nzone = \"{zone}\"");
            assert_eq!(read(&table, &[("d", text)]), Ok(at.to_owned()), "{text}");
        }
        let table = "value = \"{d} {t}\"\nformats = [\"%d.%m.%Y %H:%M\"]\nzone = \"{z}\"\nzones = { PST = \"-08:00\" }";
        let at = |time, zone| read(table, &[("d", "29.03.2026"), ("t", time), ("z", zone)]);
        assert_eq!(at("10:00", "PST"), Ok("2026-03-29T18:00:00Z".to_owned()));
        assert_eq!(at("10:00", "CET"), Ok("2026-03-29T08:00:00Z".to_owned()));
        assert!(at("02:30", "Europe/Berlin").expect_err("refused").contains("skipped"));
        assert!(at("10:00", "XYZ").expect_err("refused").contains("[created_at.zones]"));
        assert!(at("10:00:00", "CET").expect_err("refused").contains("has not the format"));
    }

    #[test]
    fn numbers_count_from_a_moment() {
        let table = "value = \"{s}\"\nunit = \"hour\"\nsince = \"2016-01-01T00:00:00Z\"";
        assert_eq!(read(table, &[("s", "25")]), Ok("2016-01-02T01:00:00Z".to_owned()));
        assert!(read(table, &[("s", "1.5")]).is_err());
        assert_eq!(
            read("value = \"{s}\"\nunit = \"second\"", &[("s", "86400")]),
            Ok("1970-01-02T00:00:00Z".into())
        );
    }

    #[test]
    fn a_table_that_cannot_be_read_is_refused() {
        for (table, problem) in [
            ("value = \"{d}\"\nformats = [\"%d.%m.%Y\"]", "`zone` is missing"),
            ("value = \"{d}\"\nformats = [\"%d.%Q\"]\nzone = \"UTC\"", "is no date format"),
            ("value = \"{d}\"\nformats = [\"%d\"]\nzone = \"Berlin\"", "must be a time zone"),
            ("value = \"{d}\"", "needs either"),
        ] {
            let error = read(table, &[]).expect_err("refused");
            assert!(error.contains(problem), "{error}");
        }
    }
}
