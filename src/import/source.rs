//! One file to import, whatever its format: its columns, and its rows as texts.
//!
//! Every format yields the same texts for the same values, so that all of them are checked by the same rules and a
//! history comes out alike from each. Which format a file has is told by its first bytes, not by its name.

use std::{
    fs::File,
    io::{Read, Seek},
    path::Path,
};

use anyhow::{Context as _, bail, ensure};

use super::{Args, columns::Column, csv_file::CsvFile, parquet_file::ParquetFile};

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const PARQUET_MAGIC: &[u8] = b"PAR1";
const ENCRYPTED_PARQUET_MAGIC: &[u8] = b"PARE";

/// An open file whose columns are in order.
pub(super) enum Source {
    Csv(Box<CsvFile>),
    Parquet(Box<ParquetFile>),
}

impl Source {
    /// Opens a file and makes sense of its columns. The error says what is wrong with them.
    pub(super) fn open(path: &Path, args: &Args) -> anyhow::Result<Self> {
        let mut file = File::open(path).context("cannot read it")?;
        let about = file.metadata().context("cannot read it")?;
        ensure!(about.is_file(), "is no file (files are read twice: first to see that they can be read)");
        let mut magic = Vec::new();
        Read::by_ref(&mut file).take(4).read_to_end(&mut magic).context("cannot read it")?;
        file.rewind().context("cannot read it")?;
        if magic == PARQUET_MAGIC {
            return Ok(Self::Parquet(Box::new(ParquetFile::open(file, args)?)));
        }
        if magic == ENCRYPTED_PARQUET_MAGIC {
            bail!("is an encrypted Parquet file; only plain ones are read");
        }
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet")) {
            bail!("is named like a Parquet file but does not begin like one");
        }
        Ok(Self::Csv(Box::new(CsvFile::open(file, magic.starts_with(GZIP_MAGIC), args)?)))
    }

    /// What each cell of a row means.
    pub(super) fn columns(&self) -> &[Column] {
        match self {
            Self::Csv(file) => file.columns(),
            Self::Parquet(file) => file.columns(),
        }
    }

    /// Reads the next row into `record`. False: that was the last one.
    pub(super) fn next(&mut self, record: &mut csv::ByteRecord) -> anyhow::Result<bool> {
        match self {
            Self::Csv(file) => file.next(record),
            Self::Parquet(file) => file.next(record),
        }
    }

    /// How much of the file is read, in bytes on disk; about, and only for the progress bar.
    pub(super) fn bytes_read(&self) -> u64 {
        match self {
            Self::Csv(file) => file.bytes_read(),
            Self::Parquet(file) => file.bytes_read(),
        }
    }
}

/// The line that a row begins on, where the format has lines.
pub(super) fn line(record: &csv::ByteRecord) -> Option<u64> {
    record.position().map(csv::Position::line)
}
