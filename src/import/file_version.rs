//! Detects whether a file was changed while it was read.

use std::{fs::File, io, time::SystemTime};

/// The reason why reading such a file fails.
pub(super) const CHANGED: &str = "was changed while it was read";

/// The size and the modification time of a file. A write changes at least one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileVersion {
    pub(super) bytes: u64,
    modified: SystemTime,
}

impl FileVersion {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { bytes: metadata.len(), modified: metadata.modified()? })
    }
}
