//! The rows from which a map is guessed, and the forms of their cells.

use std::collections::BTreeSet;

use chrono::{Datelike as _, NaiveDate, NaiveDateTime, NaiveTime};

use crate::domain::Currency;

pub(super) const DATE_FORMATS: &[&str] = &[
    "%Y-%m-%d",
    "%d.%m.%Y",
    "%d.%m.%y",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m/%d/%y",
    "%d/%m/%y",
    "%d-%m-%Y",
    "%d-%b-%y",
    "%d-%b-%Y",
    "%d %b %Y",
    "%b %d, %Y",
    "%Y/%m/%d",
    "%Y%m%d",
];
pub(super) const TIME_FORMATS: &[&str] = &["%H:%M:%S", "%H:%M:%S%.f", "%H:%M"];
/// The years that a date may have. Others come from a wrong format.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=2100;
/// Headings, and rows with as many cells.
pub(super) struct Table {
    pub(super) headings: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns how much of the file the table explains.
    pub(super) fn score(&self) -> usize {
        (self.rows.len() + 1) * (self.headings.len() - 1)
    }

    /// Returns the cells of a column that are not empty.
    pub(super) fn cells(&self, column: usize) -> impl Iterator<Item = &str> {
        self.rows
            .iter()
            .filter_map(move |row| row.get(column))
            .map(String::as_str)
            .filter(|cell| !cell.is_empty())
    }

    /// Returns whether a column has cells and all of them pass.
    pub(super) fn all(&self, column: usize, is_fine: impl Fn(&str) -> bool) -> bool {
        self.cells(column).next().is_some() && self.cells(column).all(is_fine)
    }

    pub(super) fn heading(&self, column: usize) -> &str {
        self.headings.get(column).map_or("", String::as_str)
    }

    /// Returns the column among `columns` with the first of these words in its heading. A heading that is the word itself
    /// comes before one that contains it.
    pub(super) fn named(&self, words: &[&str], columns: &[usize]) -> Option<usize> {
        let heading = |column: &&usize| self.heading(**column).to_lowercase();
        let equal = words.iter().find_map(|word| columns.iter().find(|column| heading(column) == *word));
        let containing =
            || words.iter().find_map(|word| columns.iter().find(|column| heading(column).contains(word)));
        equal.or_else(containing).copied()
    }

    pub(super) fn distinct(&self, column: usize) -> BTreeSet<&str> {
        self.cells(column).collect()
    }
}

/// Returns the format that fits every cell of a column.
pub(super) fn date_format(table: &Table, column: usize) -> Option<String> {
    let fits = |format: &str| {
        table.all(column, |cell| moment(cell, format).is_some_and(|at| YEARS.contains(&at.year())))
    };
    let with_times = DATE_FORMATS.iter().flat_map(|date| {
        let times = TIME_FORMATS.iter();
        times.flat_map(move |time| {
            [format!("{date} {time}"), format!("{date}T{time}"), format!("{date}T{time}%#z")]
        })
    });
    DATE_FORMATS.iter().map(|format| (*format).to_owned()).chain(with_times).find(|format| fits(format))
}

pub(super) fn moment(text: &str, format: &str) -> Option<NaiveDateTime> {
    let date = || NaiveDate::parse_from_str(text, format).ok().map(|date| date.and_time(NaiveTime::MIN));
    NaiveDateTime::parse_from_str(text, format).ok().or_else(date)
}

pub(super) fn is_currency(cell: &str) -> bool {
    Currency::parse(&cell.to_uppercase()).is_ok()
}

pub(super) fn is_account(cell: &str) -> bool {
    cell.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
}

pub(super) fn is_key(cell: &str) -> bool {
    cell.bytes().all(|byte| byte.is_ascii_graphic())
}
