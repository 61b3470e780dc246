//! CSV with a heading line, plain or gzipped.
//!
//! Memory is bounded by the longest row that is accepted. Behind the file the reader is given a row of ours: if that does
//! not come out as a row of its own, a cell was still open at the end of the file, and what looks like its text was rows.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{bail, ensure};
use flate2::read::MultiGzDecoder;

use super::{
    Args,
    columns::{self, Column},
};

const BUFFER_BYTES: usize = 64 * 1024;
/// A quote that is never closed would make the rest of the file one row.
const ROW_BYTES_MAX: u64 = 1024 * 1024;

/// An open CSV file.
pub(super) struct CsvFile {
    rows: csv::Reader<RowBound<Box<dyn Read + Send>>>,
    columns: Vec<Column>,
    /// The only cell of the row behind the file. It is not guessed, and no accepted cell has U+0000.
    ending: Box<[u8]>,
    /// Decompressed bytes that were read for the current row.
    since_row: Arc<AtomicU64>,
    bytes_read: Arc<AtomicU64>,
}

impl CsvFile {
    pub(super) fn open(file: File, gzipped: bool, args: &Args) -> anyhow::Result<Self> {
        let bytes_read: Arc<AtomicU64> = Arc::default();
        let counted = Counted { inner: file, count: Arc::clone(&bytes_read) };
        let file = BufReader::with_capacity(BUFFER_BYTES, counted);
        let text: Box<dyn Read + Send> = match gzipped {
            true => Box::new(MultiGzDecoder::new(file)),
            false => Box::new(file),
        };
        let since_row: Arc<AtomicU64> = Arc::default();
        let ending = format!("\0{:032x}", rand::random::<u128>()).into_bytes().into_boxed_slice();
        let row = [b"\n", &*ending, b"\n"].concat();
        let text: Box<dyn Read + Send> = Box::new(text.chain(Cursor::new(row)));
        let bound = RowBound { inner: text, since_row: Arc::clone(&since_row) };
        let mut rows =
            csv::ReaderBuilder::new().flexible(true).buffer_capacity(BUFFER_BYTES).from_reader(bound);
        let headings = rows.byte_headers()?;
        ensure!(!is_row_behind(headings, &ending), "is empty: column \"account_id\" is missing");
        let is_text =
            |cell: &[u8]| std::str::from_utf8(cell).is_ok_and(|text| !text.contains(char::is_control));
        ensure!(headings.iter().all(is_text), "is neither CSV (UTF-8, gzipped or not) nor Parquet");
        let columns = columns::parse(rows.headers()?, &args.ignore).map_err(anyhow::Error::msg)?;
        Ok(Self { rows, columns, ending, since_row, bytes_read })
    }

    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(super) fn next(&mut self, record: &mut csv::ByteRecord) -> anyhow::Result<bool> {
        self.since_row.store(0, Ordering::Relaxed);
        if !self.rows.read_byte_record(record)? || is_row_behind(record, &self.ending) {
            return Ok(false);
        }
        let last_cell = record.iter().next_back().and_then(|cell| cell.strip_suffix(b"\n"));
        if last_cell.is_some_and(|cell| cell.ends_with(&self.ending)) {
            bail!("has a quotation mark that is not closed at the end of the file");
        }
        Ok(true)
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
}

fn is_row_behind(record: &csv::ByteRecord, ending: &[u8]) -> bool {
    record.len() == 1 && record.get(0) == Some(ending)
}

/// Counts what is read of the file itself.
struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(u64::try_from(read).unwrap_or(0), Ordering::Relaxed);
        Ok(read)
    }
}

/// Fails when one row takes more than [`ROW_BYTES_MAX`].
struct RowBound<R> {
    inner: R,
    since_row: Arc<AtomicU64>,
}

impl<R: Read> Read for RowBound<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let bytes = u64::try_from(read).unwrap_or(0);
        if self.since_row.fetch_add(bytes, Ordering::Relaxed) > ROW_BYTES_MAX {
            return Err(io::Error::other(format!(
                "is longer than {ROW_BYTES_MAX} bytes; is a quotation mark not closed?"
            )));
        }
        Ok(read)
    }
}
