//! Reads the rows of all files into groups, on a blocking thread.
//!
//! Guarantee: memory is bounded by the size of a group, in rows and in bytes.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use tokio::sync::mpsc::Sender;

use super::{
    Args, OnError,
    file_version::FileVersion,
    rejects::{Reject, RowLocation},
    row::{self, ParsedRow},
    source::{self, OpenFile, RowSource},
};
use crate::domain::Posting;

/// A group ends when its cells have this many bytes, even if it has fewer rows than `--group-size`.
const GROUP_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A row that can be posted.
pub(super) struct Row {
    pub(super) location: RowLocation,
    pub(super) posting: Arc<Posting>,
    /// The balance after the row in the other system, in minor units.
    pub(super) expected_balance: Option<i64>,
}

/// A group of rows in the order of the file, and the rows among them that cannot be posted.
#[derive(Default)]
pub(super) struct Group {
    pub(super) rows: Vec<Row>,
    pub(super) rejects: Vec<Reject>,
    /// An estimate of the bytes read from all files up to this group.
    pub(super) bytes_read: u64,
    /// The bytes in all cells.
    cell_bytes: usize,
}

/// Files whose columns have been checked.
pub(super) struct Reader {
    args: Args,
    /// The files, each with its version at the check.
    files: Vec<(PathBuf, FileVersion)>,
}

impl Reader {
    /// Opens every file and checks its columns, so that a wrong file is found before any row is posted.
    pub(super) fn check(args: &Args) -> anyhow::Result<Self> {
        let mut files = Vec::with_capacity(args.files.len());
        for path in &args.files {
            let named = || format!("{}", path.display());
            files.push((path.clone(), OpenFile::open(path, args).with_context(named)?.version));
        }
        Ok(Self { args: args.clone(), files })
    }

    /// The size of all files.
    pub(super) fn bytes_total(&self) -> u64 {
        self.files.iter().map(|(_, version)| version.bytes).sum()
    }

    /// Reads all files. Ends early at a rejected row with `--on-error stop`, or when the receiver is gone.
    pub(super) fn run(self, groups: &Sender<Group>) -> anyhow::Result<()> {
        let mut bytes_before = 0;
        for (path, checked) in &self.files {
            let named = || format!("{}", path.display());
            let open = OpenFile::open(path, &self.args).with_context(named)?;
            if open.version != *checked {
                return Err(anyhow::anyhow!("was changed after its columns were checked"))
                    .with_context(named);
            }
            let mut builder =
                GroupBuilder { groups, bytes_before, group: Group::default(), args: &self.args };
            if !builder.read(open, &named().into()).with_context(named)? {
                break;
            }
            bytes_before += checked.bytes;
        }
        Ok(())
    }
}

/// Builds groups from the rows of one file.
struct GroupBuilder<'a> {
    args: &'a Args,
    groups: &'a Sender<Group>,
    bytes_before: u64,
    group: Group,
}

impl GroupBuilder<'_> {
    /// Reads one file. Returns false if the next file must not be read.
    fn read(&mut self, mut open: OpenFile, file: &Arc<str>) -> anyhow::Result<bool> {
        let mut record = csv::ByteRecord::new();
        for number in 1.. {
            match open.source.next(&mut record) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    // The rows before the error are valid.
                    self.send(&open.source);
                    return Err(error).with_context(|| format!("row {number}"));
                }
            }
            let location = RowLocation { file: Arc::clone(file), row: number, line: source::line(&record) };
            self.add(location, &open.source, &record);
            if self.args.on_error == OnError::Stop && !self.group.rejects.is_empty() {
                self.send(&open.source);
                return Ok(false);
            }
            if self.is_full() && !self.send(&open.source) {
                return Ok(false);
            }
        }
        open.ensure_unchanged()?;
        Ok(self.send(&open.source))
    }

    fn add(&mut self, location: RowLocation, source: &RowSource, record: &csv::ByteRecord) {
        self.group.cell_bytes += record.as_slice().len();
        let columns = source.columns();
        match row::parse(columns, record, self.args.assume_utc) {
            Ok(ParsedRow { posting, expected_balance }) => {
                self.group.rows.push(Row { location, posting: posting.into(), expected_balance });
            }
            Err(reason) => self.group.rejects.push(Reject::of_record(location, columns, record, reason)),
        }
    }

    fn is_full(&self) -> bool {
        let rows = self.group.rows.len() + self.group.rejects.len();
        rows >= usize::from(self.args.group_size) || self.group.cell_bytes >= GROUP_BYTES_MAX
    }

    /// Sends the group. Returns false if the receiver is gone.
    fn send(&mut self, source: &RowSource) -> bool {
        let mut group = std::mem::take(&mut self.group);
        group.bytes_read = self.bytes_before + source.bytes_read();
        self.groups.blocking_send(group).is_ok()
    }
}
