//! Rows that were not taken: where they stand, why, and the file that lists them.

use std::{
    fmt,
    fs::{self, File},
    io::{BufWriter, Read},
    path::Path,
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
pub(super) struct Place {
    pub(super) file: Arc<str>,
    /// 1 for the first row below the headings.
    pub(super) row: u64,
    /// 1 for the headings; differs from `row` by more where cells hold line breaks. None where the format has no
    /// lines.
    pub(super) line: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} row {}", self.file, self.row)
    }
}

/// A row that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reject {
    pub(super) place: Place,
    pub(super) account_id: String,
    pub(super) idempotency_key: String,
    pub(super) reason: String,
}

impl Reject {
    /// Of a row that could not be read as a posting.
    pub(super) fn of_record(
        place: Place,
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
        Self { place, account_id, idempotency_key, reason }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.reason)
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
    file: Option<csv::Writer<BufWriter<File>>>,
    told: u64,
}

impl Rejects {
    /// Starts the file anew: a second run of an import meets the same rows again. A file with anything else in it is left
    /// as it is, which may be the one that is imported.
    pub(super) fn create(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self { file: None, told: 0 }) };
        if holds_something_else(path) {
            bail!("{} exists and is no list of rejects; give --rejects another name", path.display());
        }
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut file = csv::Writer::from_writer(BufWriter::new(file));
        file.write_record(HEADINGS)?;
        file.flush()?;
        Ok(Self { file: Some(file), told: 0 })
    }

    pub(super) fn write(&mut self, rejects: &[Reject]) -> anyhow::Result<()> {
        for reject in rejects {
            match &mut self.file {
                Some(file) => file.write_record([
                    &*reject.place.file,
                    &reject.place.row.to_string(),
                    &reject.place.line.map_or_else(String::new, |line| line.to_string()),
                    &reject.account_id,
                    &reject.idempotency_key,
                    &reject.reason,
                ])?,
                None if self.told < TOLD_MAX => tracing::warn!("not taken: {reject}"),
                None if self.told == TOLD_MAX => {
                    tracing::warn!("more rows were not taken; --rejects FILE lists all")
                }
                None => {}
            }
            self.told += 1;
        }
        if let (Some(file), false) = (&mut self.file, rejects.is_empty()) {
            file.flush().context("cannot write the rejects")?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self.file {
            Some(mut file) => file.flush().context("cannot write the rejects"),
            None => Ok(()),
        }
    }
}
