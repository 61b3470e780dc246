//! CSV files whose columns have our own names.

use std::fs::File;

use anyhow::{Context as _, ensure};
use encoding_rs::Encoding;

use super::{
    Args,
    columns::{self, Column},
    csv_rows::{CsvRows, Dialect},
};

/// An open CSV file with valid headings.
pub(super) struct CsvFile {
    rows: CsvRows,
    columns: Vec<Column>,
    rows_read: u64,
}

impl CsvFile {
    pub(super) fn open(file: File, gzipped: bool, args: &Args) -> anyhow::Result<Self> {
        let mut rows = CsvRows::open(file, gzipped, &Dialect::default())?;
        let mut record = csv::ByteRecord::new();
        let has_headings = rows.next(&mut record).context("headings")?;
        ensure!(has_headings, "is empty: column \"account_id\" is missing");
        let columns = match headings(&record) {
            Ok(headings) => columns::parse(headings.iter().copied(), &args.ignore)
                .map_err(|problem| preamble(&mut rows).unwrap_or(problem)),
            Err(problem) => Err(problem),
        };
        let columns = columns.map_err(anyhow::Error::msg)?;
        Ok(Self { rows, columns, rows_read: 0 })
    }

    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(super) fn next(&mut self, record: &mut csv::ByteRecord) -> anyhow::Result<bool> {
        let is_row = self.rows.next(record)?;
        self.rows_read += u64::from(is_row);
        Ok(is_row)
    }

    pub(super) fn rows_read(&self) -> u64 {
        self.rows_read
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.rows.bytes_read()
    }
}

/// Other separators that programs use.
const SEPARATORS: [(char, &str); 3] = [(';', ";"), ('\t', "\\t"), ('|', "|")];
/// The rows below the first one that may be the headings.
const PREAMBLE_ROWS_MAX: usize = 30;

/// Returns the headings as texts. The error names the encoding or the separator of the file if it shows.
fn headings(record: &csv::ByteRecord) -> Result<Vec<&str>, String> {
    let by_mark = Encoding::for_bom(record.as_slice()).map(|(encoding, _)| encoding);
    if let Some(encoding) = by_mark.filter(|encoding| *encoding != encoding_rs::UTF_8) {
        return Err(format!(
            "is in {name}, not in UTF-8; convert it, or read it by a map (--map) with encoding = \"{name}\"",
            name = encoding.name()
        ));
    }
    let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    let bytes = record.as_slice();
    let has_cells = record.len() > 1 || bytes.iter().any(|byte| matches!(byte, b';' | b'\t' | b'|'));
    if bytes.iter().any(is_control) || !(has_cells || std::str::from_utf8(bytes).is_ok()) {
        return Err("is neither CSV (in UTF-8, plain or gzipped) nor Parquet".to_owned());
    }
    let headings: Option<Vec<&str>> = record.iter().map(|cell| std::str::from_utf8(cell).ok()).collect();
    let headings = headings.ok_or(
        "has headings that are not UTF-8; convert it, or read it by a map (--map) with its encoding, probably \
         encoding = \"windows-1252\"",
    )?;
    if let [heading] = headings.as_slice()
        && let Some((_, separator)) = SEPARATORS.iter().find(|(separator, _)| heading.contains(*separator))
    {
        return Err(format!(
            "is separated by \"{separator}\", not by commas; convert it, or read it by a map (--map) with separator = \
             \"{separator}\""
        ));
    }
    Ok(headings)
}

/// Returns the true problem if the headings are further below.
fn preamble(rows: &mut CsvRows) -> Option<String> {
    let mut record = csv::ByteRecord::new();
    for _ in 0..PREAMBLE_ROWS_MAX {
        if !rows.next(&mut record).ok()? {
            return None;
        }
        let required = record.iter().filter(|cell| std::str::from_utf8(cell).is_ok_and(columns::is_required));
        if required.count() >= 2 {
            let line = record.position().map_or(0, csv::Position::line);
            return Some(format!(
                "has its headings on line {line}; remove the lines above them, or read the file by a map (--map), which \
                 finds its headings"
            ));
        }
    }
    None
}
