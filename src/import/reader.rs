//! Reads files into groups of rows, on a blocking thread: plain or gzipped CSV, known by its first bytes.
//!
//! Memory is bounded by the group and by the longest row that is accepted, whatever the file holds.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, bail};
use chrono::Utc;
use flate2::read::MultiGzDecoder;
use tokio::sync::mpsc::Sender;

use super::{
    Args, OnError,
    columns::{self, Column},
    rejects::{Place, Reject},
    row::{self, Parsed},
};
use crate::domain::Posting;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const PARQUET_MAGIC: &[u8] = b"PAR1";
const BUFFER_BYTES: usize = 64 * 1024;
/// A quote that is never closed would make the rest of the file one row.
const ROW_BYTES_MAX: u64 = 1024 * 1024;

/// A row that can be posted.
pub(super) struct Row {
    pub(super) place: Place,
    pub(super) posting: Arc<Posting>,
    /// Minor units; what the other system showed after the row.
    pub(super) expected_balance: Option<i64>,
}

/// A group of rows in the order of the file, with the rows between them that cannot be posted.
pub(super) struct Batch {
    pub(super) rows: Vec<Row>,
    pub(super) rejects: Vec<Reject>,
    /// Of all files, compressed, up to about here.
    pub(super) bytes_read: u64,
}

/// Files whose headings are in order.
pub(super) struct Reading {
    files: Vec<(PathBuf, Vec<Column>)>,
    group_size: usize,
    stop_at_reject: bool,
    bytes_total: u64,
    bytes_read: Arc<AtomicU64>,
}

type Rows = csv::Reader<RowBound<Box<dyn Read + Send>>>;

impl Reading {
    /// Opens every file and reads its headings, so that a wrong one is found before anything is posted.
    pub(super) fn plan(args: &Args) -> anyhow::Result<Self> {
        let mut bytes_total = 0;
        let mut files = Vec::with_capacity(args.files.len());
        for path in &args.files {
            let (mut rows, _) = open(path, &Arc::default())?;
            let named = || format!("{}", path.display());
            let headings = rows.headers().with_context(named)?;
            let columns =
                columns::parse(headings, &args.ignore).map_err(anyhow::Error::msg).with_context(named)?;
            bytes_total += std::fs::metadata(path).with_context(named)?.len();
            files.push((path.clone(), columns));
        }
        Ok(Self {
            files,
            group_size: usize::from(args.group_size),
            stop_at_reject: args.on_error == OnError::Stop,
            bytes_total,
            bytes_read: Arc::default(),
        })
    }

    /// Of all files, as they are on disk.
    pub(super) fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// Reads everything, until the end, the first row that is not to be passed over, or until nobody listens.
    pub(super) fn run(self, batches: &Sender<Batch>) -> anyhow::Result<()> {
        for (path, columns) in &self.files {
            if !self.read(path, columns, batches).with_context(|| format!("{}", path.display()))? {
                break;
            }
        }
        Ok(())
    }

    /// Reads one file. False: do not go on with the next.
    fn read(&self, path: &Path, columns: &[Column], batches: &Sender<Batch>) -> anyhow::Result<bool> {
        let (mut rows, since_row) = open(path, &self.bytes_read)?;
        rows.headers()?;
        let file: Arc<str> = path.display().to_string().into();
        let mut record = csv::ByteRecord::new();
        let mut batch = self.empty_batch();
        for number in 1.. {
            since_row.store(0, Ordering::Relaxed);
            match rows.read_byte_record(&mut record) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    // What came before it is in order.
                    self.send(batch, batches);
                    return Err(error).with_context(|| format!("row {number}"));
                }
            }
            let place = Place {
                file: Arc::clone(&file),
                row: number,
                line: record.position().map_or(0, csv::Position::line),
            };
            match row::parse(columns, &record, Utc::now()) {
                Ok(Parsed { posting, expected_balance }) => {
                    batch.rows.push(Row { place, posting: posting.into(), expected_balance });
                }
                Err(reason) => batch.rejects.push(Reject::of_record(place, columns, &record, reason)),
            }
            if self.stop_at_reject && !batch.rejects.is_empty() {
                self.send(batch, batches);
                return Ok(false);
            }
            if batch.rows.len() + batch.rejects.len() >= self.group_size {
                let full = std::mem::replace(&mut batch, self.empty_batch());
                if !self.send(full, batches) {
                    return Ok(false);
                }
            }
        }
        Ok(self.send(batch, batches))
    }

    fn empty_batch(&self) -> Batch {
        Batch { rows: Vec::with_capacity(self.group_size), rejects: Vec::new(), bytes_read: 0 }
    }

    fn send(&self, mut batch: Batch, batches: &Sender<Batch>) -> bool {
        batch.bytes_read = self.bytes_read.load(Ordering::Relaxed);
        batches.blocking_send(batch).is_ok()
    }
}

/// Opens a file. The second part is where the bytes of the current row are counted; set it to zero before each.
fn open(path: &Path, bytes_read: &Arc<AtomicU64>) -> anyhow::Result<(Rows, Arc<AtomicU64>)> {
    let cannot = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(cannot)?;
    let mut magic = Vec::new();
    Read::by_ref(&mut file).take(4).read_to_end(&mut magic).with_context(cannot)?;
    io::Seek::rewind(&mut file).with_context(cannot)?;
    if magic == PARQUET_MAGIC {
        bail!(
            "{} is a Parquet file; write it as CSV first (DuckDB: COPY (FROM 'x.parquet') TO 'x.csv')",
            path.display()
        );
    }
    let file = BufReader::with_capacity(BUFFER_BYTES, Counted { inner: file, count: Arc::clone(bytes_read) });
    let text: Box<dyn Read + Send> = match magic.starts_with(GZIP_MAGIC) {
        true => Box::new(MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    let since_row: Arc<AtomicU64> = Arc::default();
    let bound = RowBound { inner: text, since_row: Arc::clone(&since_row) };
    let rows = csv::ReaderBuilder::new().flexible(true).buffer_capacity(BUFFER_BYTES).from_reader(bound);
    Ok((rows, since_row))
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
