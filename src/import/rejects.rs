//! Rejected rows: their location, the reason, and the file that lists them.

use std::{
    borrow::Cow,
    fmt,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};

use super::{OnError, columns::Column};

/// The number of rejected rows that are logged if no file is given.
const LOGGED_MAX: u64 = 10;
/// A listed cell is cut to this length. No account id and no key is longer.
const CELL_BYTES_MAX: usize = 255;

/// The place of a row in its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RowPosition {
    /// The number of the row, 1 for the first one below the headings.
    pub(super) row: u64,
    /// The line, 1 for the first one of the file. None if the format has no lines.
    pub(super) line: Option<u64>,
}

/// The location of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowLocation {
    pub(super) file: Arc<str>,
    /// The number of the row, 1 for the first one below the headings.
    pub(super) row: u64,
    /// The line of the file, 1 for the headings. Cells with line breaks take several lines. None if the format has no
    /// lines.
    pub(super) line: Option<u64>,
}

impl RowLocation {
    pub(super) fn new(file: &Arc<str>, RowPosition { row, line }: RowPosition) -> Self {
        Self { file: Arc::clone(file), row, line }
    }
}

impl fmt::Display for RowLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} row {}", self.file, self.row)
    }
}

/// A rejected row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reject {
    pub(super) location: RowLocation,
    pub(super) account_id: String,
    pub(super) idempotency_key: String,
    pub(super) reason: String,
}

impl Reject {
    /// Describes a row that could not be read as a posting.
    pub(super) fn of_record(
        location: RowLocation,
        columns: &[Column],
        record: &csv::ByteRecord,
        reason: String,
    ) -> Self {
        let cell = |wanted: Column| {
            let position = columns.iter().position(|column| *column == wanted);
            let bytes = position.and_then(|position| record.get(position)).unwrap_or_default();
            String::from_utf8_lossy(bytes.get(..CELL_BYTES_MAX).unwrap_or(bytes)).into_owned()
        };
        let (account_id, idempotency_key) = (cell(Column::AccountId), cell(Column::IdempotencyKey));
        Self { location, account_id, idempotency_key, reason }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.location, self.reason)
    }
}

const HEADINGS: [&str; 6] = ["file", "row", "line", "account_id", "idempotency_key", "reason"];

/// Returns whether the path is a file whose content is not a list of rejected rows. Checks the type first, because
/// opening a pipe would wait for a writer.
fn has_other_content(path: &Path) -> bool {
    let is_empty = fs::metadata(path).map_or(true, |about| !about.is_file() || about.len() == 0);
    let headings = HEADINGS.join(",") + "\n";
    let mut start = vec![0; headings.len()];
    let mut read = || File::open(path).and_then(|mut file| file.read_exact(&mut start));
    !is_empty && (read().is_err() || start != headings.as_bytes())
}

/// Writes rejected rows to a file, or logs the first of them.
pub(super) struct Rejects {
    list: Option<List>,
    logged: u64,
}

impl Rejects {
    /// Creates the file. Overwrites an earlier list, because a second run of an import rejects the same rows again. Refuses
    /// a file with other content, which may be the imported file itself.
    pub(super) fn create(path: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self { list: path.map(List::create).transpose()?, logged: 0 })
    }

    /// Lists rejected rows. Without a file, logs them if the import continues; otherwise the row is named at the end.
    pub(super) fn write(&mut self, rejects: &[Reject], on_error: OnError) -> anyhow::Result<()> {
        if let Some(list) = &mut self.list {
            return list.append(rejects);
        }
        if on_error == OnError::Stop {
            return Ok(());
        }
        for reject in rejects {
            match self.logged {
                ..LOGGED_MAX => tracing::warn!("rejected: {reject}"),
                LOGGED_MAX => tracing::warn!("more rows were rejected; --rejects FILE lists all of them"),
                _ => {}
            }
            self.logged += 1;
        }
        Ok(())
    }
}

/// Returns a cell that a spreadsheet shows as text. It would run a cell that begins with one of these characters.
fn harmless(cell: &str) -> Cow<'_, str> {
    match cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{cell}").into(),
        false => cell.into(),
    }
}

/// The file that lists rejected rows.
struct List {
    path: PathBuf,
    file: csv::Writer<File>,
}

impl List {
    fn create(path: &Path) -> anyhow::Result<Self> {
        if has_other_content(path) {
            bail!(
                "{} exists and is no list of rejected rows; use another name for --rejects",
                path.display()
            );
        }
        let cannot = || format!("cannot write {}", path.display());
        let file = csv::Writer::from_writer(File::create(path).with_context(cannot)?);
        let mut list = Self { path: path.to_owned(), file };
        list.file.write_record(HEADINGS).with_context(cannot)?;
        list.file.flush().with_context(cannot)?;
        Ok(list)
    }

    fn append(&mut self, rejects: &[Reject]) -> anyhow::Result<()> {
        let cannot = || format!("cannot write {}", self.path.display());
        for reject in rejects {
            let line = reject.location.line.map_or_else(String::new, |line| line.to_string());
            self.file
                .write_record([
                    &*harmless(&reject.location.file),
                    &reject.location.row.to_string(),
                    &line,
                    &*harmless(&reject.account_id),
                    &*harmless(&reject.idempotency_key),
                    &*harmless(&reject.reason),
                ])
                .with_context(cannot)?;
        }
        self.file.flush().with_context(cannot)
    }
}
