//! Reads all files twice, on a blocking thread: first to check them, then into groups.
//!
//! Guarantees: memory is bounded by the size of a group, in rows and in bytes; a file that cannot be read to its end, or
//! whose rows are in the wrong order, is refused before anything is written.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail, ensure};
use tokio::sync::mpsc::Sender;

use super::{
    Args, OnError,
    columns::Column,
    file_version::FileVersion,
    map::ImportMap,
    order::{Order, OrderCheck},
    rejects::{Reject, RowLocation, RowPosition},
    row::{self, ParsedRow, Row},
    sorted_rows::{SortedReader, SortedRows},
    source::OpenFile,
    twin_keys::TwinKeys,
};
use crate::runtime::Stop;

/// A group ends when its cells have this many bytes, even if it has fewer rows than `--group-size`.
const GROUP_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The check looks for a requested stop after this many rows.
const ROWS_BETWEEN_STOP_CHECKS: u64 = 10_000;

/// A group of rows in the order of posting, and the rows among them that cannot be posted.
#[derive(Default)]
pub(super) struct Group {
    pub(super) rows: Vec<Row>,
    pub(super) rejects: Vec<Reject>,
    /// An estimate of the bytes read from all files up to this group.
    pub(super) bytes_read: u64,
    /// The bytes in all cells.
    cell_bytes: usize,
}

/// Files that have been checked.
pub(super) struct Reader {
    args: Args,
    map: Option<ImportMap>,
    order: Order,
    files: Vec<CheckedFile>,
}

struct CheckedFile {
    path: PathBuf,
    name: Arc<str>,
    /// The version at the check.
    version: FileVersion,
    /// The rows, if they are not posted in the order of the file.
    sorted: Option<SortedRows>,
}

/// The result of the check.
pub(super) struct Checked {
    /// Rows that the map skips.
    pub(super) rows_skipped: u64,
    pub(super) warning: Option<String>,
}

impl Reader {
    /// Reads every file to its end and checks columns and order, so that a wrong file is found before any row is posted.
    pub(super) fn check(args: &Args, stop: &Stop) -> anyhow::Result<(Self, Checked)> {
        let map = args.map.as_deref().map(ImportMap::read).transpose()?;
        if map.is_some() && (args.assume_utc || !args.ignore.is_empty()) {
            bail!(
                "--ignore and --assume-utc have no effect with --map: the map names columns and time zones"
            );
        }
        let order = args.order.or(map.as_ref().and_then(ImportMap::order)).unwrap_or_default();
        let mut reader = Self { args: args.clone(), map, order, files: Vec::with_capacity(args.files.len()) };
        for path in &args.files {
            let name: Arc<str> = path.display().to_string().into();
            let version = reader.open(path).with_context(|| name.to_string())?.version;
            reader.files.push(CheckedFile { path: path.clone(), name, version, sorted: None });
        }
        let mut checked = Checked { rows_skipped: 0, warning: None };
        for index in 0..reader.files.len() {
            let Some(name) = reader.files.get(index).map(|file| Arc::clone(&file.name)) else { continue };
            // Files are checked one by one: rows of an earlier file that a later one repeats are replayed.
            let mut check = OrderCheck::new();
            checked.rows_skipped +=
                reader.check_file(index, &mut check, stop).with_context(|| name.to_string())?;
            if let Some(refusal) = check.refusal(order, args.on_error) {
                bail!("{name}: {refusal}");
            }
            checked.warning =
                checked.warning.or_else(|| check.warning().map(|warning| format!("{name}: {warning}")));
        }
        Ok((reader, checked))
    }

    fn open(&self, path: &std::path::Path) -> anyhow::Result<OpenFile> {
        OpenFile::open(path, self.map.as_ref(), &self.args)
    }

    /// Reads one file to its end. Returns the number of rows that the map skips.
    fn check_file(&mut self, index: usize, check: &mut OrderCheck, stop: &Stop) -> anyhow::Result<u64> {
        let Some(file) = self.files.get(index) else { return Ok(0) };
        if self.order != Order::File {
            let mut open = self.open(&file.path)?;
            let sorted = SortedRows::sort(&mut open.source, self.order, self.args.assume_utc, stop)?;
            open.ensure_unchanged()?;
            if let Some(file) = self.files.get_mut(index) {
                file.sorted = Some(sorted);
            }
        }
        let Some(file) = self.files.get(index) else { return Ok(0) };
        let mut rows = self.rows(file)?;
        let mut parser = self.parser();
        let mut record = csv::ByteRecord::new();
        let mut count: u64 = 0;
        while rows.next(&mut record)? {
            count += 1;
            ensure!(
                !count.is_multiple_of(ROWS_BETWEEN_STOP_CHECKS) || !stop.is_requested(),
                "interrupted; nothing was written"
            );
            if let Ok(ParsedRow { posting, expected_balance }) = parser.parse(rows.columns(), &record)? {
                let location = RowLocation::new(&file.name, rows.position(&record));
                check.add(&Row { location, posting: posting.into(), expected_balance });
            }
        }
        rows.finish()?;
        Ok(match &file.sorted {
            Some(sorted) => sorted.rows_skipped,
            None => rows.rows_skipped(),
        })
    }

    /// The size of all files.
    pub(super) fn bytes_total(&self) -> u64 {
        self.files.iter().map(|file| file.version.bytes).sum()
    }

    /// Opens a checked file again, at its first row.
    fn rows(&self, file: &CheckedFile) -> anyhow::Result<OrderedRows> {
        if let Some(sorted) = &file.sorted {
            return Ok(OrderedRows::Sorted { reader: Box::new(sorted.reader()?), bytes: file.version.bytes });
        }
        let open = self.open(&file.path)?;
        ensure!(open.version == file.version, "was changed after its columns were checked");
        Ok(OrderedRows::File(open))
    }

    fn parser(&self) -> RowParser {
        let derives_keys = self.map.as_ref().is_some_and(ImportMap::derives_keys);
        RowParser {
            assume_utc: self.args.assume_utc,
            twins: derives_keys.then(|| TwinKeys::new(self.order == Order::ByTime)),
        }
    }

    /// Reads all files. Ends early at a rejected row with `--on-error stop`, or when the receiver is gone.
    pub(super) fn run(self, groups: &Sender<Group>) -> anyhow::Result<()> {
        let mut bytes_before = 0;
        for file in &self.files {
            let named = || file.name.to_string();
            let rows = self.rows(file).with_context(named)?;
            let mut builder = GroupBuilder {
                groups,
                bytes_before,
                group: Group::default(),
                args: &self.args,
                parser: self.parser(),
            };
            if !builder.read(rows, &file.name).with_context(named)? {
                break;
            }
            bytes_before += file.version.bytes;
        }
        Ok(())
    }
}

/// The rows of one file in the order of posting.
enum OrderedRows {
    File(OpenFile),
    Sorted { reader: Box<SortedReader>, bytes: u64 },
}

impl OrderedRows {
    fn columns(&self) -> &[Column] {
        match self {
            Self::File(open) => open.source.columns(),
            Self::Sorted { reader, .. } => reader.columns(),
        }
    }

    fn next(&mut self, record: &mut csv::ByteRecord) -> anyhow::Result<bool> {
        match self {
            Self::File(open) => {
                open.source.next(record).with_context(|| format!("row {}", open.source.rows_read() + 1))
            }
            Self::Sorted { reader, .. } => reader.next(record),
        }
    }

    fn position(&self, record: &csv::ByteRecord) -> RowPosition {
        match self {
            Self::File(open) => open.source.position(record),
            Self::Sorted { reader, .. } => reader.position(),
        }
    }

    fn bytes_read(&self) -> u64 {
        match self {
            Self::File(open) => open.source.bytes_read(),
            Self::Sorted { reader, bytes } => reader.share_of(*bytes),
        }
    }

    fn rows_skipped(&self) -> u64 {
        match self {
            Self::File(open) => open.source.rows_skipped(),
            Self::Sorted { .. } => 0,
        }
    }

    /// Fails if the file was written to while it was read.
    fn finish(&self) -> anyhow::Result<()> {
        match self {
            Self::File(open) => open.ensure_unchanged(),
            Self::Sorted { .. } => Ok(()),
        }
    }
}

/// Parses rows, and numbers equal ones if their keys are derived.
struct RowParser {
    assume_utc: bool,
    twins: Option<TwinKeys>,
}

impl RowParser {
    /// The inner error is the reason why the row is rejected.
    fn parse(
        &mut self,
        columns: &[Column],
        record: &csv::ByteRecord,
    ) -> anyhow::Result<Result<ParsedRow, String>> {
        let mut parsed = row::parse(columns, record, self.assume_utc);
        if let (Ok(row), Some(twins)) = (&mut parsed, &mut self.twins) {
            twins.number(&mut row.posting)?;
        }
        Ok(parsed)
    }
}

/// Builds groups from the rows of one file.
struct GroupBuilder<'a> {
    args: &'a Args,
    groups: &'a Sender<Group>,
    bytes_before: u64,
    group: Group,
    parser: RowParser,
}

impl GroupBuilder<'_> {
    /// Reads one file. Returns false if the next file must not be read.
    fn read(&mut self, mut rows: OrderedRows, file: &Arc<str>) -> anyhow::Result<bool> {
        let mut record = csv::ByteRecord::new();
        loop {
            match rows.next(&mut record) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    // The rows before the error are valid.
                    self.send(&rows);
                    return Err(error);
                }
            }
            self.add(RowLocation::new(file, rows.position(&record)), rows.columns(), &record)?;
            if self.args.on_error == OnError::Stop && !self.group.rejects.is_empty() {
                self.send(&rows);
                return Ok(false);
            }
            if self.is_full() && !self.send(&rows) {
                return Ok(false);
            }
        }
        rows.finish()?;
        Ok(self.send(&rows))
    }

    fn add(
        &mut self,
        location: RowLocation,
        columns: &[Column],
        record: &csv::ByteRecord,
    ) -> anyhow::Result<()> {
        self.group.cell_bytes += record.as_slice().len();
        match self.parser.parse(columns, record)? {
            Ok(ParsedRow { posting, expected_balance }) => {
                self.group.rows.push(Row { location, posting: posting.into(), expected_balance });
            }
            Err(reason) => self.group.rejects.push(Reject::of_record(location, columns, record, reason)),
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        let rows = self.group.rows.len() + self.group.rejects.len();
        rows >= usize::from(self.args.group_size) || self.group.cell_bytes >= GROUP_BYTES_MAX
    }

    /// Sends the group. Returns false if the receiver is gone.
    fn send(&mut self, rows: &OrderedRows) -> bool {
        let mut group = std::mem::take(&mut self.group);
        group.bytes_read = self.bytes_before + rows.bytes_read();
        self.groups.blocking_send(group).is_ok()
    }
}
