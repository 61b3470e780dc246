//! Parses one row of a file into a posting, with the same checks as a request to the API. The error names every wrong
//! field.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    sync::Arc,
};

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, SubsecRound, Utc};
use serde::de::{Deserializer as _, MapAccess, Visitor};

use super::{columns::Column, rejects::RowLocation};
use crate::domain::{
    AccountId, Amount, AmountError, COUNTERPARTY_LENGTH_MAX, Currency, DESCRIPTION_LENGTH_MAX, Direction,
    IdempotencyKey, Metadata, Posting, bounded_text, parse_minor, parse_moment, without_leap_second,
};

/// A row that can be posted.
pub(super) struct Row {
    pub(super) location: RowLocation,
    pub(super) posting: Arc<Posting>,
    /// The balance after the row in the other system, in minor units.
    pub(super) expected_balance: Option<i64>,
}

/// The content of a row.
#[derive(Debug)]
pub(super) struct ParsedRow {
    pub(super) posting: Posting,
    /// The balance after the row in the other system, in minor units.
    pub(super) expected_balance: Option<i64>,
}

/// The cells of a row by column. An empty cell is an absent value.
#[derive(Default)]
struct Cells<'a> {
    account_id: &'a str,
    idempotency_key: &'a str,
    direction: &'a str,
    amount: &'a str,
    currency: &'a str,
    created_at: &'a str,
    counterparty: &'a str,
    description: &'a str,
    expected_balance: &'a str,
    metadata: BTreeMap<String, serde_json::Value>,
    metadata_object: &'a str,
    problem: &'a str,
}

/// Parses a row. With `assume_utc`, `created_at` may lack a time zone.
pub(super) fn parse(
    columns: &[Column],
    record: &csv::ByteRecord,
    assume_utc: bool,
) -> Result<ParsedRow, String> {
    if record.len() != columns.len() {
        return Err(format!("has {} cells, but there are {} columns", record.len(), columns.len()));
    }
    let is_mapped = columns.contains(&Column::Problem);
    let mut cells = cells(columns, record)?;
    if !cells.problem.is_empty() {
        return Err(cells.problem.to_owned());
    }
    let mut problems = Problems::default();
    let currency = problems.check("currency", Currency::parse(cells.currency));
    let parsed = (
        problems.check("account_id", AccountId::parse(cells.account_id)),
        problems.check("idempotency_key", IdempotencyKey::parse(cells.idempotency_key)),
        problems.check("direction", Direction::parse(cells.direction)),
        currency.and_then(|currency| problems.check("amount", amount(cells.amount, currency, is_mapped))),
    );
    let created_at = problems.check_present("created_at", cells.created_at, |text| moment(text, assume_utc));
    if let Some(currency) = currency {
        problems.check(
            "currency",
            match created_at {
                Some(created_at) => currency.check_active_at(created_at),
                None => currency.check_active(),
            },
        );
    }
    let counterparty = problems.check_present("counterparty", cells.counterparty, |text| {
        bounded_text(text, COUNTERPARTY_LENGTH_MAX)
    });
    let description = problems
        .check_present("description", cells.description, |text| bounded_text(text, DESCRIPTION_LENGTH_MAX));
    let expected_balance = currency.and_then(|currency| {
        problems.check_present("expected_balance", cells.expected_balance, |text| {
            minor(text, currency, is_mapped)
        })
    });
    let object = problems.check_present("metadata", cells.metadata_object, json_object);
    for (name, value) in object.unwrap_or_default() {
        if cells.metadata.insert(name.clone(), value).is_some() {
            problems.0.push(format!("metadata has {name:?} twice"));
        }
    }
    let metadata = match cells.metadata.is_empty() {
        true => None,
        false => problems.check("metadata", Metadata::from_json(&cells.metadata)),
    };
    match (parsed, currency) {
        ((Some(account_id), Some(idempotency_key), Some(direction), Some(amount)), Some(currency))
            if problems.0.is_empty() =>
        {
            let posting = Posting {
                account_id,
                idempotency_key,
                direction,
                amount,
                currency,
                counterparty,
                description,
                metadata,
                reverses: None,
                created_at,
            };
            Ok(ParsedRow { posting, expected_balance })
        }
        _ => Err(problems.0.join("; ")),
    }
}

fn cells<'a>(columns: &[Column], record: &'a csv::ByteRecord) -> Result<Cells<'a>, String> {
    let mut cells = Cells::default();
    for (column, bytes) in columns.iter().zip(record) {
        if *column == Column::Ignored {
            continue;
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
        match column {
            Column::AccountId => cells.account_id = text,
            Column::IdempotencyKey => cells.idempotency_key = text,
            Column::Direction => cells.direction = text,
            Column::Amount => cells.amount = text,
            Column::Currency => cells.currency = text,
            Column::CreatedAt => cells.created_at = text,
            Column::Counterparty => cells.counterparty = text,
            Column::Description => cells.description = text,
            Column::ExpectedBalance => cells.expected_balance = text,
            Column::Metadata(name) if !text.is_empty() => {
                cells.metadata.insert(name.clone(), text.into());
            }
            Column::MetadataObject => cells.metadata_object = text,
            Column::Problem => cells.problem = text,
            Column::Metadata(_) | Column::Ignored => {}
        }
    }
    Ok(cells)
}

fn amount(text: &str, currency: Currency, is_mapped: bool) -> Result<Amount, String> {
    Amount::from_minor(minor(text, currency, is_mapped)?).map_err(|error| error.to_string())
}

/// Parses an amount in minor units. Zeros at the end of the fraction have no meaning, so that `12.5000` is the same value
/// as in a Parquet file. After exactly three digits the point may be a thousands mark, so `12.500` is refused. A map has
/// named the marks and given plain numbers.
fn minor(text: &str, currency: Currency, is_mapped: bool) -> Result<i64, String> {
    let decimals = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let exact = match decimals {
        0 | 3 => text,
        _ => text.trim_end_matches('0').trim_end_matches('.'),
    };
    parse_minor(exact, currency).map_err(|error| match error {
        AmountError::TooManyDecimals { .. } if is_mapped => format!("{text} {error}"),
        AmountError::TooManyDecimals { .. } if decimals == 3 => {
            format!("{error}, or the point of {text:?} is a thousands mark (a map, --map, says which)")
        }
        AmountError::Malformed if text.bytes().any(|byte| byte.is_ascii_digit()) => {
            format!("{error}, and not {text:?} (a map, --map, reads other ways to write numbers)")
        }
        error => error.to_string(),
    })
}

/// Returns `created_at` of a row in microseconds. None if it is absent or invalid.
pub(super) fn created_at_micros(
    columns: &[Column],
    record: &csv::ByteRecord,
    assume_utc: bool,
) -> Option<i64> {
    let position = columns.iter().position(|column| *column == Column::CreatedAt)?;
    let text = std::str::from_utf8(record.get(position)?).ok()?;
    let at = parse_moment(text).or_else(|| without_zone(text).filter(|_| assume_utc))?;
    Some(at.timestamp_micros())
}

/// Parses `created_at` to the microsecond, which is PostgreSQL's precision. Refuses timestamps before 1970, where the
/// ids begin. Future ones are refused by the decision, which knows the database's clock.
fn moment(text: &str, assume_utc: bool) -> Result<DateTime<Utc>, String> {
    let at = match (parse_moment(text), without_zone(text)) {
        (Some(at), _) => at,
        (None, Some(at)) if assume_utc => at,
        (None, Some(_)) => return Err("has no time zone; --assume-utc reads it as UTC".to_owned()),
        (None, None) => {
            return Err("must be a timestamp in RFC 3339, such as 1993-01-31T08:00:00Z".to_owned());
        }
    };
    let at = at.trunc_subsecs(6);
    if at < DateTime::UNIX_EPOCH {
        return Err("is before 1970, where the ledger's ids (UUIDv7) begin".to_owned());
    }
    Ok(at)
}

/// Parses `1993-01-31T08:00:00`, the same with a space, or `1993-01-31`, which is the beginning of the day.
fn without_zone(text: &str) -> Option<DateTime<Utc>> {
    let date = || text.parse::<NaiveDate>().ok().map(|date| date.and_time(NaiveTime::MIN));
    let at = text.replacen(' ', "T", 1).parse::<NaiveDateTime>().ok().or_else(date)?;
    without_leap_second(at.and_utc())
}

/// Returns the entries of a JSON object in the order of the text. Repeated names stay repeated.
fn json_object(text: &str) -> Result<Vec<(String, serde_json::Value)>, String> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<(String, serde_json::Value)>;

        fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
            formatter.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let entries = json.deserialize_map(Entries).and_then(|entries| json.end().map(|()| entries));
    entries.map_err(|_| "must be a JSON object".to_owned())
}

/// The problems of a row, one for each wrong field.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn check<T, E: Display>(&mut self, field: &str, checked: Result<T, E>) -> Option<T> {
        match checked {
            Ok(value) => Some(value),
            Err(error) => {
                self.0.push(format!("{field} {error}"));
                None
            }
        }
    }

    fn check_present<'a, T, E: Display>(
        &mut self,
        field: &str,
        text: &'a str,
        parse: impl FnOnce(&'a str) -> Result<T, E>,
    ) -> Option<T> {
        if text.is_empty() { None } else { self.check(field, parse(text)) }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::columns, *};

    const HEADINGS: [&str; 8] = [
        "account_id",
        "idempotency_key",
        "direction",
        "amount",
        "currency",
        "created_at",
        "metadata.channel",
        "expected_balance",
    ];

    fn parse_row(cells: [&str; 8]) -> Result<ParsedRow, String> {
        let columns = columns::parse(HEADINGS, &[]).expect("headings");
        parse(&columns, &csv::ByteRecord::from(cells.to_vec()), false)
    }

    #[test]
    fn empty_cells_are_absent_values() {
        let row = parse_row(["a", "k", "credit", "1.50", "EUR", "", "", ""]).expect("valid");
        assert_eq!((row.posting.created_at, row.posting.metadata, row.expected_balance), (None, None, None));
    }

    #[test]
    fn every_wrong_field_of_a_row_is_named() {
        let error = parse_row(["", "k k", "in", "1,5", "EUR", "1993", "", "x"]).expect_err("refused");
        for field in
            ["account_id", "idempotency_key", "direction", "amount", "created_at", "expected_balance"]
        {
            assert!(error.contains(field), "{error}");
        }
        assert_eq!(error.matches("; ").count(), 5);
    }

    #[test]
    fn amounts_are_exact_or_refused_with_the_cause() {
        let amount = |text: &str, currency: &str| {
            parse_row(["a", "k", "credit", text, currency, "", "", ""]).map(|row| row.posting.amount.minor())
        };
        assert_eq!(amount("12.5000", "EUR"), Ok(1_250));
        assert_eq!(amount("100.00", "JPY"), Ok(100));
        assert_eq!(amount("1.234", "BHD"), Ok(1_234));
        for text in ["12.500", "1.234"] {
            assert!(amount(text, "EUR").expect_err("refused").contains("thousands mark"), "{text}");
        }
        for text in ["1,234.50", "1.234,50", "5.00-", "5,00", "$5.00", "(5.00)", "5.", " 5.00 "] {
            let error = amount(text, "EUR").expect_err("refused");
            assert!(error.contains(text) && error.contains("--map"), "{error}");
        }
        for text in ["", "0.00", "12.5010", "٥.00"] {
            assert!(amount(text, "EUR").is_err(), "{text}");
        }
    }

    /// Seen to fail with the advice for files without a map.
    #[test]
    fn a_mapped_amount_with_too_many_decimals_is_shown_without_advice_to_use_a_map() {
        let mut columns = columns::parse(HEADINGS, &[]).expect("headings");
        columns.push(Column::Problem);
        let row = ["a", "k", "credit", "75.887", "USD", "", "", "", ""];
        let error = parse(&columns, &csv::ByteRecord::from(row.to_vec()), false).expect_err("refused");
        assert_eq!(error, "amount 75.887 has more than the 2 decimals of USD");
    }

    #[test]
    fn timestamps_before_1970_are_refused() {
        let error = |at: &str| parse_row(["a", "k", "credit", "1", "EUR", at, "", ""]).expect_err("refused");
        assert!(error("1969-12-31T23:59:59Z").contains("before 1970"));
        let row = parse_row(["a", "k", "credit", "1", "EUR", "1993-01-01T01:00:00.1234567+01:00", "", ""]);
        let at = row.expect("valid").posting.created_at.expect("given");
        assert_eq!(at.to_rfc3339(), "1993-01-01T00:00:00.123456+00:00");
    }

    #[test]
    fn a_row_of_another_length_or_encoding_is_refused() {
        let columns = columns::parse(HEADINGS, &[]).expect("headings");
        let short = csv::ByteRecord::from(vec!["a"]);
        assert!(parse(&columns, &short, false).expect_err("refused").contains("1 cells"));
        let mut latin = csv::ByteRecord::from(vec!["a"; 7]);
        latin.push_field(b"\xe9");
        assert_eq!(parse(&columns, &latin, false).expect_err("refused"), "is not UTF-8");
    }
}
