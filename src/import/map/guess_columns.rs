//! Guesses which column is which field, from headings and cells.

use std::{fmt::Write as _, path::Path};

use chrono::{NaiveDateTime, NaiveTime};
use encoding_rs::Encoding;

use super::{
    guess_table::{DATE_FORMATS, TIME_FORMATS, Table, date_format, is_account, is_currency, is_key, moment},
    number::{self, Marks},
};

const MARKS: &[Marks] = &[
    Marks { decimal: '.', thousands: None },
    Marks { decimal: ',', thousands: None },
    Marks { decimal: '.', thousands: Some(',') },
    Marks { decimal: ',', thousands: Some('.') },
    Marks { decimal: ',', thousands: Some(' ') },
    Marks { decimal: '.', thousands: Some('\'') },
];

const AMOUNT: &[&str] = &["amount", "betrag", "gross", "brutto", "amt", "umsatz", "value"];
const INCOMING: &[&str] = &["deposit", "haben", "paid in", "money in", "credit"];
const OUTGOING: &[&str] = &["withdrawal", "soll", "paid out", "money out", "debit"];
const BALANCE: &[&str] = &["running balance", "balance", "saldo", "guthaben", "kontostand"];
const FEE: &[&str] = &["fee", "entgelt", "gebühr"];
const KEY: &[&str] =
    &["transaction_id", "transaction id", "transactionid", "transaktionscode", "transferwise id", "id"];
const ACCOUNT: &[&str] = &["account no", "accountid", "account", "nameorig", "konto"];
const DATE: &[&str] = &[
    "completed",
    "buchungsdatum",
    "buchungstag",
    "created_utc",
    "created",
    "booking",
    "transactiondate",
    "datum",
    "date",
    "time",
];
const COUNTED: &[&str] = &["timestamp", "transactiondt", "step", "time"];
const STATE: &[&str] = &["status", "state"];
const DONE: &[&str] = &["completed", "gebucht", "booked", "posted", "settled", "success"];
const DIRECTION: &[&str] = &["direction", "transactiontype", "credit/debit", "debit/credit", "type"];
const COUNTERPARTY: &[&str] =
    &["counterparty", "payee", "merchant", "begünstigt", "empfänger", "namedest", "name"];
const DESCRIPTION: &[&str] = &["description", "verwendungszweck", "details", "beschreibung", "memo", "text"];

/// The beginning of a file, from which a map is guessed.
pub(super) struct Guess<'a> {
    pub(super) file: &'a Path,
    pub(super) encoding: &'static Encoding,
    pub(super) separator: u8,
    pub(super) table: &'a Table,
}

/// A column of dates, and the column of times beside it.
struct Dates {
    date: usize,
    time: Option<usize>,
    format: String,
}

impl Guess<'_> {
    /// Returns the map as text.
    pub(super) fn text(&self) -> String {
        let table = self.table;
        let all: Vec<usize> = (0..table.headings.len()).collect();
        let currency = all.iter().copied().find(|column| table.all(*column, is_currency));
        let dates = self.dates();
        let (marks, numbers) = self.numbers(&dates);
        let texts: Vec<usize> = all.iter().copied().filter(|column| !numbers.contains(column)).collect();
        let mut map = String::new();
        self.write_reading(&mut map, marks, dates.as_ref());
        self.write_identity(&mut map, currency, &all, dates.as_ref());
        for (field, words) in [("counterparty", COUNTERPARTY), ("description", DESCRIPTION)] {
            if let Some(column) = table.named(words, &texts) {
                line(&mut map, &format!("{field} = {}", quoted(&cell(table.heading(column)))));
            }
        }
        let balances: Vec<usize> =
            numbers.iter().copied().filter(|column| table.named(BALANCE, &[*column]).is_some()).collect();
        if let [balance] = *balances.as_slice() {
            line(&mut map, &format!("expected_balance = {}", quoted(&cell(table.heading(balance)))));
        }
        self.write_amount(&mut map, marks, &numbers, &texts);
        self.write_created_at(&mut map, dates.as_ref(), &numbers);
        self.write_skip(&mut map, &texts);
        map
    }

    fn write_reading(&self, map: &mut String, marks: Marks, dates: Option<&Dates>) {
        line(
            map,
            &format!(
                "# Proposed by ledger import --guess {}. Check every line before you use it.",
                self.file.display()
            ),
        );
        line(map, &format!("separator = {}", quoted(&char::from(self.separator).to_string())));
        line(map, &format!("encoding = {}", quoted(&self.encoding.name().to_lowercase())));
        line(map, &format!("decimal = {}", quoted(&marks.decimal.to_string())));
        if let Some(thousands) = marks.thousands {
            line(map, &format!("thousands = {}", quoted(&thousands.to_string())));
        }
        line(map, &format!("order = {}\n", quoted(self.order(dates))));
    }

    fn write_identity(
        &self,
        map: &mut String,
        currency: Option<usize>,
        all: &[usize],
        dates: Option<&Dates>,
    ) {
        let table = self.table;
        let is_account_column = |column: &usize| {
            table.cells(*column).count() == table.rows.len() && table.named(BALANCE, &[*column]).is_none()
        };
        let full: Vec<usize> = all.iter().copied().filter(is_account_column).collect();
        let account = table.named(ACCOUNT, &full);
        line(
            map,
            &match account {
                Some(column) => {
                    let change = if table.all(column, is_account) { "" } else { "|alphanumeric" };
                    format!("account_id = {}", quoted(&format!("{{{}{change}}}", table.heading(column))))
                }
                None => {
                    // An account has one currency.
                    let currency = currency
                        .map_or_else(String::new, |column| format!(":{{{}|upper}}", table.heading(column)));
                    format!(
                        "account_id = {}   # the name of the account in the ledger",
                        quoted(&format!("main{currency}"))
                    )
                }
            },
        );
        line(
            map,
            &match currency {
                Some(column) => {
                    format!("currency = {}", quoted(&format!("{{{}|upper}}", table.heading(column))))
                }
                None => "currency = \"EUR\"   # the file has no currency".to_owned(),
            },
        );
        let is_key =
            |column: &usize| table.distinct(*column).len() == table.rows.len() && table.all(*column, is_key);
        let keys: Vec<usize> = all.iter().copied().filter(is_key).collect();
        if let Some(key) = table.named(KEY, &keys).filter(|_| !table.rows.is_empty()) {
            return line(map, &format!("idempotency_key = {}", quoted(&cell(table.heading(key)))));
        }
        line(map, "# No column identifies a row, so these columns do so together.");
        let is_time =
            |column: usize| dates.is_some_and(|dates| dates.date == column || dates.time == Some(column));
        let is_hashed = |column: &usize| {
            let heading = table.heading(*column);
            let is_state = STATE.contains(&heading.to_lowercase().as_str());
            is_time(*column) || (!heading.is_empty() && !is_state && table.cells(*column).next().is_some())
        };
        let hashed: Vec<String> = all
            .iter()
            .filter(|column| is_hashed(column))
            .map(|column| quoted(table.heading(*column)))
            .collect();
        line(map, &format!("idempotency_key_hash = [{}]", hashed.join(", ")));
    }

    fn write_amount(&self, map: &mut String, marks: Marks, numbers: &[usize], texts: &[usize]) {
        let table = self.table;
        let is_negative = |cell: &str| {
            number::parse(cell, marks, "").ok().flatten().is_some_and(|number| number.is_negative)
        };
        let (incoming, outgoing) = (table.named(INCOMING, numbers), table.named(OUTGOING, numbers));
        line(map, "\n[amount]");
        if let (Some(incoming), Some(outgoing)) = (incoming, outgoing) {
            line(map, &format!("in = {}", quoted(table.heading(incoming))));
            line(map, &format!("out = {}", quoted(table.heading(outgoing))));
            if table.all(outgoing, is_negative) {
                line(map, "out_is_negative = true");
            }
            return;
        }
        let others: Vec<usize> =
            numbers.iter().copied().filter(|column| table.named(BALANCE, &[*column]).is_none()).collect();
        let Some(amount) = table.named(AMOUNT, &others).or_else(|| others.first().copied()) else {
            return line(map, "column = \"\"   # no column of numbers was found");
        };
        line(map, &format!("column = {}", quoted(table.heading(amount))));
        let is_signed = table.cells(amount).any(is_negative);
        let direction = table.named(DIRECTION, texts).filter(|_| !is_signed);
        match direction {
            Some(column) => self.write_direction(map, column),
            None if is_signed => {}
            None => line(map, "positive = \"debit\"   # no number is negative; \"credit\" if money comes in"),
        }
        if let Some(fee) =
            table.named(FEE, &others).filter(|fee| FEE.contains(&table.heading(*fee).to_lowercase().as_str()))
        {
            line(map, &format!("\n[fee]\ncolumn = {}", quoted(table.heading(fee))));
            if table.cells(fee).any(is_negative) {
                line(map, "positive = \"credit\"");
            }
        }
    }

    fn write_direction(&self, map: &mut String, column: usize) {
        const CREDIT: &[&str] = &["credit", "cash_in", "deposit", "haben", "cr", "c", "h", "topup", "in"];
        let (credit, debit): (Vec<&str>, Vec<&str>) = self
            .table
            .distinct(column)
            .into_iter()
            .partition(|word| CREDIT.contains(&word.to_lowercase().as_str()));
        let list = |words: Vec<&str>| words.into_iter().map(quoted).collect::<Vec<_>>().join(", ");
        line(map, &format!("\n[direction]\ncolumn = {}", quoted(self.table.heading(column))));
        line(map, &format!("credit = [{}]", list(credit)));
        line(map, &format!("debit = [{}]", list(debit)));
    }

    fn write_created_at(&self, map: &mut String, dates: Option<&Dates>, numbers: &[usize]) {
        let table = self.table;
        let heading = |column: usize| cell(table.heading(column));
        if let Some(Dates { date, time, format }) = dates {
            let value = match time {
                Some(time) => format!("{} {}", heading(*date), heading(*time)),
                None => heading(*date),
            };
            line(map, &format!("\n[created_at]\nvalue = {}\nformats = [{}]", quoted(&value), quoted(format)));
            line(map, "zone = \"UTC\"   # the time zone of the file, such as \"Europe/Berlin\"");
        } else if let Some(column) = table.named(COUNTED, numbers) {
            line(map, &format!("\n[created_at]\nvalue = {}", quoted(&heading(column))));
            line(map, "unit = \"second\"   # or millisecond, minute, hour, day");
            line(map, "since = \"1970-01-01T00:00:00Z\"   # the moment from which it counts");
        }
    }

    fn write_skip(&self, map: &mut String, texts: &[usize]) {
        let Some(column) = self.table.named(STATE, texts) else { return };
        let states = self.table.distinct(column);
        let done: Vec<String> = states
            .iter()
            .filter(|state| DONE.contains(&state.to_lowercase().as_str()))
            .map(|state| quoted(state))
            .collect();
        if states.len() > 1 && !done.is_empty() {
            let column = quoted(self.table.heading(column));
            line(map, &format!("\n[[skip]]\ncolumn = {column}\nis_not = [{}]", done.join(", ")));
        }
    }

    fn dates(&self) -> Option<Dates> {
        let table = self.table;
        let columns = 0..table.headings.len();
        let found: Vec<(usize, String)> =
            columns.clone().filter_map(|column| Some((column, date_format(table, column)?))).collect();
        let candidates: Vec<usize> = found.iter().map(|(column, _)| *column).collect();
        let date = table.named(DATE, &candidates).or_else(|| candidates.first().copied())?;
        let (_, format) = found.into_iter().find(|(column, _)| *column == date)?;
        let is_date = DATE_FORMATS.contains(&format.as_str());
        let times = TIME_FORMATS.iter().find_map(|time_format| {
            let is_time = |cell: &str| NaiveTime::parse_from_str(cell, time_format).is_ok();
            let column = columns.clone().find(|column| table.all(*column, is_time))?;
            Some((column, *time_format))
        });
        Some(match times.filter(|_| is_date) {
            Some((time, time_format)) => {
                Dates { date, time: Some(time), format: format!("{format} {time_format}") }
            }
            None => Dates { date, time: None, format },
        })
    }

    /// Returns the marks with which most columns are numbers, and these columns.
    fn numbers(&self, dates: &Option<Dates>) -> (Marks, Vec<usize>) {
        let is_date = |column: usize| dates.as_ref().is_some_and(|dates| dates.date == column);
        let columns = |marks: Marks| -> Vec<usize> {
            let is_number = |column: &usize| {
                self.table.all(*column, |cell| {
                    let currency = cell.split_whitespace().next_back().filter(|code| is_currency(code));
                    number::parse(cell, marks, currency.unwrap_or_default()).is_ok()
                        || number::parse(cell, marks, "EUR").is_ok()
                })
            };
            let columns = 0..self.table.headings.len();
            columns.filter(|column| !is_date(*column) && is_number(column)).collect()
        };
        let mut best: Option<(Marks, Vec<usize>)> = None;
        for marks in MARKS {
            let found = columns(*marks);
            if best.as_ref().is_none_or(|(_, most)| found.len() > most.len()) {
                best = Some((*marks, found));
            }
        }
        best.unwrap_or((Marks { decimal: '.', thousands: None }, Vec::new()))
    }

    fn order(&self, dates: Option<&Dates>) -> &'static str {
        let Some(Dates { date, time, format }) = dates else { return "file" };
        let moments: Vec<NaiveDateTime> = self
            .table
            .rows
            .iter()
            .filter_map(|row| {
                let time =
                    time.and_then(|time| row.get(time)).map_or_else(String::new, |time| format!(" {time}"));
                moment(&format!("{}{time}", row.get(*date)?), format)
            })
            .collect();
        match (moments.is_sorted(), moments.is_sorted_by(|a, b| a >= b)) {
            (true, _) => "file",
            (false, true) => "newest-first",
            (false, false) => "by-time",
        }
    }
}

fn cell(heading: &str) -> String {
    format!("{{{heading}}}")
}

/// Returns a text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn line(map: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(map, "{text}");
}
