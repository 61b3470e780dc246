//! Reads files into groups of rows, on a blocking thread.
//!
//! Memory is bounded by the group, in rows and in bytes, whatever the files hold.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use chrono::Utc;
use tokio::sync::mpsc::Sender;

use super::{
    Args, OnError,
    file_version::FileVersion,
    rejects::{Place, Reject},
    row::{self, Parsed},
    source::{self, Opened, Source},
};
use crate::domain::Posting;

/// A group ends early where its cells hold this much.
const GROUP_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A row that can be posted.
pub(super) struct Row {
    pub(super) place: Place,
    pub(super) posting: Arc<Posting>,
    /// Minor units; what the other system showed after the row.
    pub(super) expected_balance: Option<i64>,
}

/// A group of rows in the order of the file, with the rows between them that cannot be posted.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) rows: Vec<Row>,
    pub(super) rejects: Vec<Reject>,
    /// Of all files, as they are on disk, up to about here.
    pub(super) bytes_read: u64,
    /// Of all cells.
    cell_bytes: usize,
}

/// Files whose columns are in order.
pub(super) struct Reading {
    args: Args,
    /// Each as it is on disk.
    files: Vec<(PathBuf, FileVersion)>,
}

impl Reading {
    /// Opens every file and looks at its columns, so that a wrong one is found before anything is posted.
    pub(super) fn plan(args: &Args) -> anyhow::Result<Self> {
        let mut files = Vec::with_capacity(args.files.len());
        for path in &args.files {
            let named = || format!("{}", path.display());
            files.push((path.clone(), Opened::open(path, args).with_context(named)?.version));
        }
        Ok(Self { args: args.clone(), files })
    }

    /// Of all files, as they are on disk.
    pub(super) fn bytes_total(&self) -> u64 {
        self.files.iter().map(|(_, version)| version.bytes).sum()
    }

    /// Reads everything, until the end, the first row that is not to be passed over, or until nobody listens.
    pub(super) fn run(self, batches: &Sender<Batch>) -> anyhow::Result<()> {
        let mut bytes_before = 0;
        for (path, planned) in &self.files {
            let named = || format!("{}", path.display());
            let opened = Opened::open(path, &self.args).with_context(named)?;
            if opened.version != *planned {
                return Err(anyhow::anyhow!("was changed since it was looked at")).with_context(named);
            }
            let mut groups = Groups { batches, bytes_before, batch: Batch::default(), args: &self.args };
            if !groups.read(opened, &named().into()).with_context(named)? {
                break;
            }
            bytes_before += planned.bytes;
        }
        Ok(())
    }
}

/// Makes groups of the rows of one file.
struct Groups<'a> {
    args: &'a Args,
    batches: &'a Sender<Batch>,
    bytes_before: u64,
    batch: Batch,
}

impl Groups<'_> {
    /// Reads one file. False: do not go on with the next.
    fn read(&mut self, mut opened: Opened, file: &Arc<str>) -> anyhow::Result<bool> {
        let mut record = csv::ByteRecord::new();
        for number in 1.. {
            match opened.source.next(&mut record) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    // What came before it is in order.
                    self.send(&opened.source);
                    return Err(error).with_context(|| format!("row {number}"));
                }
            }
            let place = Place { file: Arc::clone(file), row: number, line: source::line(&record) };
            self.add(place, &opened.source, &record);
            if self.args.on_error == OnError::Stop && !self.batch.rejects.is_empty() {
                self.send(&opened.source);
                return Ok(false);
            }
            if self.is_full() && !self.send(&opened.source) {
                return Ok(false);
            }
        }
        opened.ensure_unchanged()?;
        Ok(self.send(&opened.source))
    }

    fn add(&mut self, place: Place, source: &Source, record: &csv::ByteRecord) {
        self.batch.cell_bytes += record.as_slice().len();
        let columns = source.columns();
        match row::parse(columns, record, Utc::now(), self.args.assume_utc) {
            Ok(Parsed { posting, expected_balance }) => {
                self.batch.rows.push(Row { place, posting: posting.into(), expected_balance });
            }
            Err(reason) => self.batch.rejects.push(Reject::of_record(place, columns, record, reason)),
        }
    }

    fn is_full(&self) -> bool {
        let rows = self.batch.rows.len() + self.batch.rejects.len();
        rows >= usize::from(self.args.group_size) || self.batch.cell_bytes >= GROUP_BYTES_MAX
    }

    /// Hands the group over. False: nobody listens.
    fn send(&mut self, source: &Source) -> bool {
        let mut batch = std::mem::take(&mut self.batch);
        batch.bytes_read = self.bytes_before + source.bytes_read();
        self.batches.blocking_send(batch).is_ok()
    }
}
