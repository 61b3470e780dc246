//! Rows of a file in another order: sorted in memory piece by piece, kept in temporary files, and merged while they are
//! read.
//!
//! Memory is bounded by the size of a piece. Temporary files are about as large as the file, in the folder for temporary
//! files (`TMPDIR`), and have no name, so nothing is left behind.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{BufReader, BufWriter, Seek as _},
};

use anyhow::{Context as _, ensure};

use super::{columns::Column, order::Order, rejects::RowPosition, row, source::RowSource};
use crate::runtime::Stop;

/// The estimated memory of the rows of one piece.
const PIECE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// An open piece takes a file descriptor and a buffer.
const PIECES_MAX: usize = 256;
const PIECE_BUFFER_BYTES: usize = 16 * 1024;
/// Memory of a row beside its cells, and of a cell beside its bytes.
const ROW_OVERHEAD_BYTES: usize = 200;
const CELL_OVERHEAD_BYTES: usize = 8;
/// The fields of a stored row before its cells: sort key, sequence number, row, line.
const PREFIX_FIELDS: usize = 4;
const NOT_STORED: &str = "cannot store the sorted rows in the folder for temporary files";

/// All rows of a file, sorted.
pub(super) struct SortedRows {
    pieces: Vec<File>,
    columns: Vec<Column>,
    rows: u64,
    pub(super) rows_skipped: u64,
}

impl SortedRows {
    /// Reads the whole file.
    pub(super) fn sort(
        source: &mut RowSource,
        order: Order,
        assume_utc: bool,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let columns = source.columns().to_vec();
        let mut sorted = Self { pieces: Vec::new(), columns, rows: 0, rows_skipped: 0 };
        let mut piece = Piece::default();
        let mut record = csv::ByteRecord::new();
        while source.next(&mut record).with_context(|| format!("row {}", source.rows_read() + 1))? {
            let position = source.position(&record);
            let key = match order {
                Order::File => 0,
                Order::NewestFirst => i64::try_from(position.row).map_or(i64::MIN, |row| -row),
                // A row without a valid time is rejected; as the first one, it stops the import before any other.
                Order::ByTime => {
                    row::created_at_micros(&sorted.columns, &record, assume_utc).unwrap_or(i64::MIN)
                }
            };
            piece.add(key, sorted.rows, position, &record);
            sorted.rows += 1;
            if piece.bytes >= PIECE_BYTES_MAX {
                ensure!(!stop.is_requested(), "interrupted; nothing was written");
                ensure!(
                    sorted.pieces.len() < PIECES_MAX,
                    "is too large to be sorted here; sort it with another program, or import it in parts"
                );
                sorted.pieces.push(std::mem::take(&mut piece).store().context(NOT_STORED)?);
            }
        }
        sorted.pieces.push(piece.store().context(NOT_STORED)?);
        sorted.rows_skipped = source.rows_skipped();
        Ok(sorted)
    }

    /// Returns a reader from the first row on. Only one reader may be used at a time.
    pub(super) fn reader(&self) -> anyhow::Result<SortedReader> {
        let mut pieces = Vec::with_capacity(self.pieces.len());
        let mut next = BinaryHeap::new();
        for (index, file) in self.pieces.iter().enumerate() {
            let mut file = file.try_clone()?;
            file.rewind()?;
            let rows = csv::ReaderBuilder::new()
                .has_headers(false)
                .flexible(true)
                .buffer_capacity(PIECE_BUFFER_BYTES)
                .from_reader(BufReader::with_capacity(PIECE_BUFFER_BYTES, file));
            let mut piece = StoredPiece { rows, head: csv::ByteRecord::new() };
            if let Some(key) = piece.advance()? {
                next.push(Reverse((key, index)));
            }
            pieces.push(piece);
        }
        Ok(SortedReader {
            pieces,
            next,
            columns: self.columns.clone(),
            position: RowPosition::default(),
            rows_read: 0,
            rows_total: self.rows,
        })
    }
}

/// Rows that are sorted in memory.
#[derive(Default)]
struct Piece {
    rows: Vec<(i64, u64, RowPosition, csv::ByteRecord)>,
    bytes: usize,
}

impl Piece {
    fn add(&mut self, key: i64, seq: u64, position: RowPosition, record: &csv::ByteRecord) {
        self.bytes += record.as_slice().len() + CELL_OVERHEAD_BYTES * record.len() + ROW_OVERHEAD_BYTES;
        self.rows.push((key, seq, position, record.clone()));
    }

    fn store(mut self) -> anyhow::Result<File> {
        self.rows.sort_unstable_by_key(|(key, seq, ..)| (*key, *seq));
        let file = BufWriter::with_capacity(PIECE_BUFFER_BYTES, tempfile::tempfile()?);
        let mut rows = csv::WriterBuilder::new().flexible(true).from_writer(file);
        for (key, seq, position, record) in self.rows {
            for number in [key.to_string(), seq.to_string(), position.row.to_string()] {
                rows.write_field(number)?;
            }
            rows.write_field(position.line.map_or_else(String::new, |line| line.to_string()))?;
            rows.write_record(&record)?;
        }
        let file = rows.into_inner().map_err(|error| error.into_error())?;
        Ok(file.into_inner().map_err(|error| error.into_error())?)
    }
}

/// A piece in its temporary file, and its first row that is not read yet.
struct StoredPiece {
    rows: csv::Reader<BufReader<File>>,
    head: csv::ByteRecord,
}

impl StoredPiece {
    /// Reads the next row. Returns its sort key, or None at the end.
    fn advance(&mut self) -> anyhow::Result<Option<(i64, u64)>> {
        if !self.rows.read_byte_record(&mut self.head)? {
            return Ok(None);
        }
        Ok(Some((number(&self.head, 0).context(NOT_STORED)?, number(&self.head, 1).context(NOT_STORED)?)))
    }
}

fn number<T: std::str::FromStr>(record: &csv::ByteRecord, field: usize) -> Option<T> {
    std::str::from_utf8(record.get(field)?).ok()?.parse().ok()
}

/// Reads sorted rows.
pub(super) struct SortedReader {
    pieces: Vec<StoredPiece>,
    /// The sort key of the next row of each piece.
    next: BinaryHeap<Reverse<((i64, u64), usize)>>,
    columns: Vec<Column>,
    position: RowPosition,
    rows_read: u64,
    rows_total: u64,
}

impl SortedReader {
    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(super) fn next(&mut self, record: &mut csv::ByteRecord) -> anyhow::Result<bool> {
        let Some(Reverse((_, index))) = self.next.pop() else { return Ok(false) };
        let Some(piece) = self.pieces.get_mut(index) else { return Ok(false) };
        self.position =
            RowPosition { row: number(&piece.head, 2).context(NOT_STORED)?, line: number(&piece.head, 3) };
        record.clear();
        for cell in piece.head.iter().skip(PREFIX_FIELDS) {
            record.push_field(cell);
        }
        if let Some(key) = piece.advance()? {
            self.next.push(Reverse((key, index)));
        }
        self.rows_read += 1;
        Ok(true)
    }

    pub(super) fn position(&self) -> RowPosition {
        self.position
    }

    /// Returns the share of `bytes` that has been read.
    pub(super) fn share_of(&self, bytes: u64) -> u64 {
        let read = u128::from(bytes) * u128::from(self.rows_read) / u128::from(self.rows_total.max(1));
        u64::try_from(read).unwrap_or(bytes)
    }
}
