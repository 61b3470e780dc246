//! CSV with a heading line, plain or gzipped.
//!
//! Memory is bounded by the longest row that is accepted.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::ensure;
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
        let bound = RowBound { inner: text, since_row: Arc::clone(&since_row) };
        let mut rows =
            csv::ReaderBuilder::new().flexible(true).buffer_capacity(BUFFER_BYTES).from_reader(bound);
        let headings = rows.byte_headers()?;
        let is_text =
            |cell: &[u8]| std::str::from_utf8(cell).is_ok_and(|text| !text.contains(char::is_control));
        ensure!(headings.iter().all(is_text), "is neither CSV (UTF-8, gzipped or not) nor Parquet");
        let columns = columns::parse(rows.headers()?, &args.ignore).map_err(anyhow::Error::msg)?;
        Ok(Self { rows, columns, since_row, bytes_read })
    }

    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(super) fn next(&mut self, record: &mut csv::ByteRecord) -> anyhow::Result<bool> {
        self.since_row.store(0, Ordering::Relaxed);
        Ok(self.rows.read_byte_record(record)?)
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
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
