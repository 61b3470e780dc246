//! Rows that were not taken: where they stand, why, and the file that lists them.

use std::{
    fmt,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};

use super::columns::Column;

/// How many are told on stderr where no file was asked for.
const TOLD_MAX: u64 = 10;
/// Of a cell that is listed. Longer ones are no account and no key.
const CELL_BYTES_MAX: usize = 255;

/// Where a row stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowLocation {
    pub(super) file: Arc<str>,
    /// 1 for the first row below the headings.
    pub(super) row: u64,
    /// 1 for the headings; differs from `row` by more where cells hold line breaks. None where the format has no
    /// lines.
    pub(super) line: Option<u64>,
}

impl fmt::Display for RowLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} row {}", self.file, self.row)
    }
}

/// A row that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reject {
    pub(super) location: RowLocation,
    pub(super) account_id: String,
    pub(super) idempotency_key: String,
    pub(super) reason: String,
}

impl Reject {
    /// Of a row that could not be read as a posting.
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

/// Asked of the path before it is opened: opening a pipe to read from it waits for whoever writes.
fn holds_something_else(path: &Path) -> bool {
    let is_empty = fs::metadata(path).map_or(true, |about| !about.is_file() || about.len() == 0);
    let headings = HEADINGS.join(",") + "\n";
    let mut start = vec![0; headings.len()];
    let mut read = || File::open(path).and_then(|mut file| file.read_exact(&mut start));
    !is_empty && (read().is_err() || start != headings.as_bytes())
}

/// Where rejects go.
pub(super) struct Rejects {
    list: Option<List>,
    told: u64,
}

impl Rejects {
    /// Starts the file anew: a second run of an import meets the same rows again. A file with anything else in it is left
    /// as it is, which may be the one that is imported.
    pub(super) fn create(path: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self { list: path.map(List::create).transpose()?, told: 0 })
    }

    pub(super) fn write(&mut self, rejects: &[Reject]) -> anyhow::Result<()> {
        if let Some(list) = &mut self.list {
            return list.append(rejects);
        }
        for reject in rejects {
            match self.told {
                ..TOLD_MAX => tracing::warn!("not taken: {reject}"),
                TOLD_MAX => tracing::warn!("more rows were not taken; --rejects FILE lists all"),
                _ => {}
            }
            self.told += 1;
        }
        Ok(())
    }
}

/// The file that lists them.
struct List {
    path: PathBuf,
    file: csv::Writer<File>,
}

impl List {
    fn create(path: &Path) -> anyhow::Result<Self> {
        if holds_something_else(path) {
            bail!("{} exists and is no list of rejects; give --rejects another name", path.display());
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
                    &*reject.location.file,
                    &reject.location.row.to_string(),
                    &line,
                    &reject.account_id,
                    &reject.idempotency_key,
                    &reject.reason,
                ])
                .with_context(cannot)?;
        }
        self.file.flush().with_context(cannot)
    }
}
