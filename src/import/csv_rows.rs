//! The rows of a CSV file, headings included, plain or gzipped, in any dialect and encoding.
//!
//! Guarantees: memory is bounded by the longest accepted row; a quotation mark that is not closed never hides rows.
//!
//! A missing closing quotation mark makes the following rows look like the text of one cell, and the `csv` crate accepts
//! that. Two checks find it:
//!
//! - Text after a closing quotation mark is refused. The opening mark of the next quoted cell then closes the open cell,
//!   and its text follows.
//! - A row with a random cell is appended to the file. If it is not read as a row of its own, a cell was still open at
//!   the end of the file.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{bail, ensure};
use encoding_rs::{Encoding, UTF_8};
use encoding_rs_io::DecodeReaderBytesBuilder;

use super::{
    file_version::{CHANGED, FileVersion},
    gzip::GzipInput,
    tracked_input::TrackedInput,
};

const BUFFER_BYTES: usize = 64 * 1024;

/// How the bytes of a file become cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) separator: u8,
    /// None if quotation marks have no meaning.
    pub(super) quote: Option<u8>,
    pub(super) encoding: &'static Encoding,
}

impl Default for Dialect {
    /// RFC 4180.
    fn default() -> Self {
        Self { separator: b',', quote: Some(b'"'), encoding: UTF_8 }
    }
}

/// An open CSV file.
pub(super) struct CsvRows {
    rows: csv::Reader<TrackedInput<Box<dyn Read + Send>>>,
    /// The only cell of the row after the file. It is random, and it has a U+0000, which no accepted cell has.
    end_marker: Box<[u8]>,
    bytes_read: Arc<AtomicU64>,
}

impl CsvRows {
    pub(super) fn open(file: File, gzipped: bool, dialect: &Dialect) -> io::Result<Self> {
        let bytes_read: Arc<AtomicU64> = Arc::default();
        let before = FileVersion::of(&file)?;
        let counted = FileInput { inner: file, count: Arc::clone(&bytes_read), before };
        let file = BufReader::with_capacity(BUFFER_BYTES, counted);
        let mut text: Box<dyn Read + Send> = match gzipped {
            true => Box::new(GzipInput::new(file)),
            false => Box::new(file),
        };
        // UTF-8 is checked cell by cell.
        if dialect.encoding != UTF_8 {
            text = Box::new(
                DecodeReaderBytesBuilder::new().encoding(Some(dialect.encoding)).strip_bom(true).build(text),
            );
        }
        let end_marker = format!("\0{:032x}", rand::random::<u128>()).into_bytes().into_boxed_slice();
        let row = [b"\n", &*end_marker, b"\n"].concat();
        let text: Box<dyn Read + Send> = Box::new(text.chain(Cursor::new(row)));
        let rows = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(dialect.separator)
            .quote(dialect.quote.unwrap_or(b'"'))
            .quoting(dialect.quote.is_some())
            .buffer_capacity(BUFFER_BYTES)
            .from_reader(TrackedInput::new(text, dialect.separator, dialect.quote));
        Ok(Self { rows, end_marker, bytes_read })
    }

    /// Reads the next row into `record`. Returns false at the end.
    pub(super) fn next(&mut self, record: &mut csv::ByteRecord) -> anyhow::Result<bool> {
        self.rows.get_mut().row_bytes = 0;
        if !self.rows.read_byte_record(record)? || self.is_end_marker(record) {
            return Ok(false);
        }
        if let Some(mut begins) = record.position().cloned() {
            begins.set_line(self.rows.get_mut().line_of(begins.byte()));
            record.set_position(Some(begins));
        }
        ensure!(!self.rows.get_ref().has_text_after_quote(self.rows.position().byte()), TEXT_AFTER_QUOTE);
        let last_cell = record.iter().next_back().and_then(|cell| cell.strip_suffix(b"\n"));
        if last_cell.is_some_and(|cell| cell.ends_with(&self.end_marker)) {
            bail!("has a quotation mark that is not closed at the end of the file");
        }
        Ok(true)
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    fn is_end_marker(&self, record: &csv::ByteRecord) -> bool {
        record.len() == 1 && record.get(0) == Some(&self.end_marker)
    }
}

const TEXT_AFTER_QUOTE: &str =
    "has text after a closing quotation mark; is a quotation mark missing, or not doubled within its cell?";

/// Counts the bytes that are read from the file. At the end it fails if the file was written to: the last row of a file
/// that was truncated may be incomplete.
struct FileInput {
    inner: File,
    count: Arc<AtomicU64>,
    before: FileVersion,
}

impl Read for FileInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if read == 0 && !buffer.is_empty() && FileVersion::of(&self.inner)? != self.before {
            return Err(io::Error::other(CHANGED));
        }
        self.count.fetch_add(u64::try_from(read).unwrap_or(0), Ordering::Relaxed);
        Ok(read)
    }
}
