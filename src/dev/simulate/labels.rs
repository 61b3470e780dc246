//! The file of `--labels`: which planted scheme each acknowledged transaction belongs to.

use std::{
    cell::RefCell,
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use uuid::Uuid;

use super::traffic::Request;

const COLUMNS: [&str; 5] = ["transaction_id", "account_id", "idempotency_key", "label", "scheme"];

/// A CSV file that is being written.
#[derive(Debug)]
pub(super) struct Labels {
    path: PathBuf,
    /// The writer, or the first error.
    writer: RefCell<csv::Result<csv::Writer<File>>>,
}

impl Labels {
    /// Creates the file. An existing one is replaced.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| cannot_write(path))?;
        let labels = Self { path: path.to_owned(), writer: RefCell::new(Ok(csv::Writer::from_writer(file))) };
        labels.write(COLUMNS);
        Ok(labels)
    }

    /// Adds a transaction. The usual purchases before a takeover are legitimate.
    pub(super) fn add(&self, request: &Request, transaction_id: Uuid) {
        let (scheme, is_fraud) = request.scheme.map_or(("", false), |step| (step.name, step.is_fraud));
        let label = if is_fraud { "fraud" } else { "legitimate" };
        self.write([&transaction_id.to_string(), &request.account_id, &request.key, label, scheme]);
    }

    fn write(&self, record: [&str; COLUMNS.len()]) {
        let mut writer = self.writer.borrow_mut();
        if let Ok(Err(error)) = writer.as_mut().map(|writer| writer.write_record(record)) {
            *writer = Err(error);
        }
    }

    /// Writes the rest, and returns the first error.
    pub(super) fn finish(&self) -> anyhow::Result<()> {
        let mut writer = self.writer.borrow_mut();
        let flushed = match &mut *writer {
            Ok(writer) => writer.flush().map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        flushed.map_err(anyhow::Error::msg).with_context(|| cannot_write(&self.path))
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write the labels to {}", path.display())
}
