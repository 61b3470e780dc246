//! CSV files of other programs, read by a map: finds the headings below a preamble, drops the footer, and returns rows
//! with our own columns.

use std::{collections::VecDeque, fs::File};

use anyhow::{anyhow, bail};

use super::{
    columns::Column,
    csv_rows::CsvRows,
    map::{ImportMap, MappedRow, Mapper},
};

/// The headings are within the first rows.
const PREAMBLE_ROWS_MAX: usize = 100;

/// An open CSV file with a map.
pub(super) struct MappedFile {
    rows: CsvRows,
    mapper: Mapper,
    /// Rows that are read ahead, because the last ones may be the footer.
    ahead: VecDeque<csv::ByteRecord>,
    footer_rows: usize,
    /// The fee of the last row.
    fee: Option<csv::ByteRecord>,
    rows_read: u64,
    rows_skipped: u64,
}

impl MappedFile {
    pub(super) fn open(file: File, gzipped: bool, map: &ImportMap) -> anyhow::Result<Self> {
        let mut rows = CsvRows::open(file, gzipped, &map.dialect())?;
        let headings = find_headings(&mut rows, map)?;
        let mapper = map.mapper(&headings)?;
        Ok(Self {
            rows,
            mapper,
            ahead: VecDeque::new(),
            footer_rows: map.footer_rows(),
            fee: None,
            rows_read: 0,
            rows_skipped: 0,
        })
    }

    pub(super) fn columns(&self) -> &[Column] {
        self.mapper.columns()
    }

    pub(super) fn next(&mut self, record: &mut csv::ByteRecord) -> anyhow::Result<bool> {
        if let Some(fee) = self.fee.take() {
            *record = fee;
            return Ok(true);
        }
        while let Some(row) = self.next_row()? {
            self.rows_read += 1;
            match self.mapper.map(&row) {
                MappedRow::Skipped => self.rows_skipped += 1,
                MappedRow::Transactions { first, fee } => {
                    *record = first;
                    self.fee = fee;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Returns the next row that is not part of the footer.
    fn next_row(&mut self) -> anyhow::Result<Option<csv::ByteRecord>> {
        while self.ahead.len() <= self.footer_rows {
            let mut row = csv::ByteRecord::new();
            if !self.rows.next(&mut row)? {
                return Ok(None);
            }
            self.ahead.push_back(row);
        }
        Ok(self.ahead.pop_front())
    }

    pub(super) fn rows_read(&self) -> u64 {
        self.rows_read
    }

    /// Returns the number of rows that the map skipped.
    pub(super) fn rows_skipped(&self) -> u64 {
        self.rows_skipped
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.rows.bytes_read()
    }
}

/// Reads up to the first row that has every heading of the map. The error names what the most similar row lacks.
fn find_headings(rows: &mut CsvRows, map: &ImportMap) -> anyhow::Result<csv::ByteRecord> {
    let mut nearest: Option<(u64, Vec<&str>)> = None;
    let mut row = csv::ByteRecord::new();
    for number in 1..=PREAMBLE_ROWS_MAX {
        let is_row = rows.next(&mut row).map_err(|error| anyhow!("row {number}: {error:#}"))?;
        if !is_row {
            break;
        }
        let missing = map.missing_in(&row);
        if missing.is_empty() {
            return Ok(row);
        }
        if nearest.as_ref().is_none_or(|(_, fewest)| missing.len() < fewest.len()) {
            nearest = Some((row.position().map_or(0, csv::Position::line), missing));
        }
    }
    let Some((line, missing)) = nearest else { bail!("is empty") };
    bail!(
        "no row has all headings that the map names: line {line} lacks {}; are `separator` and `encoding` of the map right?",
        map.describe(&missing)
    )
}
