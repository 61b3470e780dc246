//! Proposes a map for a file, from its first rows. The proposal is text with comments, to be read and corrected.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use anyhow::{Context as _, ensure};
use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

use super::{guess_columns::Guess, guess_table::Table, text};
use crate::import::gzip::GzipInput;

/// Rows below the headings that are looked at.
const ROWS_MAX: usize = 200;
/// The beginning of the file that is looked at.
const BYTES_MAX: u64 = 512 * 1024;
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Returns a map for the file, as text.
pub(in crate::import) fn guess(path: &Path) -> anyhow::Result<String> {
    let named = || path.display().to_string();
    let bytes = beginning(path).with_context(named)?;
    let (content, encoding) = decode(&bytes);
    let (separator, table) = SEPARATORS
        .iter()
        .filter_map(|separator| Some((*separator, table(&content, *separator)?)))
        .max_by_key(|(_, table)| table.score())
        .with_context(|| format!("{}: has no rows of two or more cells", path.display()))?;
    Ok(Guess { file: path, encoding, separator, table: &table }.text())
}

fn beginning(path: &Path) -> anyhow::Result<Vec<u8>> {
    let about = std::fs::metadata(path)?;
    ensure!(about.is_file(), "is no regular file");
    let mut magic = Vec::new();
    File::open(path)?.take(2).read_to_end(&mut magic)?;
    let file = BufReader::new(File::open(path)?);
    let mut bytes = Vec::new();
    match magic == GZIP_MAGIC {
        true => GzipInput::new(file).take(BYTES_MAX).read_to_end(&mut bytes)?,
        false => file.take(BYTES_MAX).read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> (String, &'static Encoding) {
    let encoding = match (Encoding::for_bom(bytes), std::str::from_utf8(bytes)) {
        (Some((encoding, _)), _) => encoding,
        (None, Ok(_)) => UTF_8,
        // The last character may be cut.
        (None, Err(error)) if error.valid_up_to() + 4 > bytes.len() => UTF_8,
        (None, Err(_)) => WINDOWS_1252,
    };
    let (text, _, _) = encoding.decode(bytes);
    (text.into_owned(), encoding)
}

/// Returns the headings and the rows below them, if the separator gives cells. The headings are the first row with as
/// many cells as most rows have.
fn table(content: &str, separator: u8) -> Option<Table> {
    let rows = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(separator)
        .from_reader(content.as_bytes())
        .into_byte_records()
        .map_while(Result::ok)
        .take(ROWS_MAX)
        .map(|row| row.iter().map(|cell| text(cell).to_owned()).collect::<Vec<String>>())
        .collect::<Vec<_>>();
    let lengths: BTreeSet<usize> = rows.iter().map(Vec::len).filter(|length| *length > 1).collect();
    let rows_of = |length: usize| rows.iter().filter(|row| row.len() == length).count();
    let width = lengths.into_iter().max_by_key(|length| rows_of(*length) * (length - 1))?;
    let mut rows = rows.into_iter().filter(|row| row.len() == width);
    let headings = rows.next()?;
    Some(Table { headings, rows: rows.collect() })
}
