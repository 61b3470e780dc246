//! Reads Parquet files, a few rows at a time, in the order of the file.
//!
//! Memory is bounded by the pages of one row group: row groups are read one after the other, texts are views into
//! their page, and a file whose row groups exceed a limit is refused (see [`parquet_limits`]).

use std::{
    fs::File,
    ops::Range,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use arrow_array::{Array, ArrayRef, RecordBatch, cast::AsArray};
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
};

use super::{
    Args,
    columns::{self, Column},
    parquet_cell::{self, TrailingZeros},
    parquet_limits,
    parquet_schema::{self, ColumnPath, NamedColumn},
};

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 1024;

/// An open Parquet file.
pub(super) struct ParquetFile {
    file: File,
    footer: ArrowReaderMetadata,
    columns: Vec<Column>,
    /// The position of each column in a batch; None for ignored columns.
    paths: Vec<Option<ColumnPath>>,
    selected: ProjectionMask,
    /// The row groups that are not read yet.
    row_groups: Range<usize>,
    /// The batches of the current row group.
    batches: Option<ParquetRecordBatchReader>,
    /// The values of the current batch, in the order of `paths`.
    values: Vec<Option<Values>>,
    batch_rows: usize,
    next_row: usize,
    /// A buffer for the text of one cell.
    text: Vec<u8>,
    rows_read: u64,
    rows_total: u64,
    bytes_total: u64,
}

/// The values of one column in the current batch.
struct Values {
    /// The struct that the column is a field of. Where the struct is null, so are its fields.
    parent: Option<ArrayRef>,
    array: ArrayRef,
    trailing_zeros: TrailingZeros,
}

impl ParquetFile {
    /// Opens a file, and refuses columns, types and sizes that cannot be read.
    pub(super) fn open(file: File, args: &Args) -> anyhow::Result<Self> {
        let bytes_total = file.metadata()?.len();
        parquet_limits::check_footer(&file)?;
        const DAMAGED: &str = "is no whole Parquet file";
        let declared = catch_damage(|| parquet_schema::read_footer(&file)).context(DAMAGED)?;
        parquet_limits::check_columns(declared.parquet_schema())?;
        let footer = catch_damage(|| parquet_schema::with_types_to_read(&declared)).context(DAMAGED)?;
        let metadata = footer.metadata();
        let named = parquet_schema::columns_of(&footer, &args.ignore);
        let columns = columns::parse(named.iter().map(|column| column.name.as_str()), &args.ignore)
            .map_err(anyhow::Error::msg)?;
        check_types(&columns, &named, args.assume_utc)?;
        let mut paths: Vec<Option<ColumnPath>> = columns
            .iter()
            .zip(&named)
            .map(|(column, named)| (*column != Column::Ignored).then_some(named.path))
            .collect();
        let roots = select_roots(&mut paths);
        let selected = ProjectionMask::roots(footer.parquet_schema(), roots);
        parquet_limits::check_compression(metadata, &selected)?;
        parquet_limits::check_row_groups(metadata, &selected)?;
        let rows_total = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let row_groups = 0..metadata.num_row_groups();
        Ok(Self {
            file,
            footer,
            columns,
            paths,
            selected,
            row_groups,
            batches: None,
            values: Vec::new(),
            batch_rows: 0,
            next_row: 0,
            text: Vec::new(),
            rows_read: 0,
            rows_total,
            bytes_total,
        })
    }

    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(super) fn next(&mut self, record: &mut csv::ByteRecord) -> anyhow::Result<bool> {
        while self.next_row >= self.batch_rows {
            // Drop the views of the last batch, since they keep its pages in memory.
            self.values.clear();
            let Some(batch) = catch_damage(|| self.next_batch())? else {
                ensure!(
                    self.rows_read == self.rows_total,
                    "the file ends too early: its footer states {} rows",
                    self.rows_total
                );
                return Ok(false);
            };
            self.set_batch(&batch);
        }
        record.clear();
        for values in &self.values {
            self.text.clear();
            if let Some(values) = values {
                values.render(self.next_row, &mut self.text)?;
            }
            record.push_field(&self.text);
        }
        self.next_row += 1;
        self.rows_read += 1;
        Ok(true)
    }

    fn next_batch(&mut self) -> anyhow::Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.batches.as_mut().and_then(Iterator::next) {
                return Ok(Some(batch?));
            }
            // Drop the last row group before the next one is opened.
            self.batches = None;
            let Some(row_group) = self.row_groups.next() else { return Ok(None) };
            let file = self.file.try_clone()?;
            let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.footer.clone())
                .with_projection(self.selected.clone())
                .with_row_groups(vec![row_group])
                .with_batch_size(BATCH_ROWS)
                .build()?;
            self.batches = Some(batches);
        }
    }

    fn set_batch(&mut self, batch: &RecordBatch) {
        self.batch_rows = batch.num_rows();
        self.next_row = 0;
        self.values = self
            .paths
            .iter()
            .zip(&self.columns)
            .map(|(path, column)| Values::at((*path)?, column, batch))
            .collect();
    }

    pub(super) fn rows_read(&self) -> u64 {
        self.rows_read
    }

    /// Estimates the bytes from the share of the rows.
    pub(super) fn bytes_read(&self) -> u64 {
        if self.rows_read >= self.rows_total {
            return self.bytes_total;
        }
        let bytes = u128::from(self.bytes_total) * u128::from(self.rows_read) / u128::from(self.rows_total);
        u64::try_from(bytes).unwrap_or(self.bytes_total)
    }
}

impl Values {
    fn at(path: ColumnPath, column: &Column, batch: &RecordBatch) -> Option<Self> {
        let trailing_zeros = TrailingZeros::of(column);
        let root = batch.columns().get(path.root)?;
        let Some(child) = path.child else {
            return Some(Self { parent: None, array: Arc::clone(root), trailing_zeros });
        };
        let array = Arc::clone(root.as_struct_opt()?.columns().get(child)?);
        Some(Self { parent: Some(Arc::clone(root)), array, trailing_zeros })
    }

    /// Appends the text of a value, and nothing for a null.
    fn render(&self, row: usize, text: &mut Vec<u8>) -> anyhow::Result<()> {
        let is_absent =
            self.parent.as_ref().is_some_and(|parent| parent.is_null(row)) || self.array.is_null(row);
        if is_absent { Ok(()) } else { parquet_cell::render(&self.array, row, self.trailing_zeros, text) }
    }
}

/// Turns a panic of the Parquet reader into an error. The reader asserts properties that a damaged file may lack. After
/// such a panic the reader is not used again.
fn catch_damage<T>(read: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    panic::catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(anyhow::anyhow!("the Parquet file is damaged")))
}

fn check_types(columns: &[Column], named: &[NamedColumn], assume_utc: bool) -> anyhow::Result<()> {
    for (column, NamedColumn { name, field, is_uuid, .. }) in columns.iter().zip(named) {
        parquet_cell::check(column, field.data_type(), *is_uuid, assume_utc)
            .map_err(|problem| anyhow::anyhow!("column {name:?} {problem}"))?;
    }
    Ok(())
}

/// Returns the root columns to read, and changes each path to the position of its root among these.
fn select_roots(paths: &mut [Option<ColumnPath>]) -> Vec<usize> {
    let mut roots: Vec<usize> = Vec::new();
    for path in paths.iter_mut().flatten() {
        if roots.last() != Some(&path.root) {
            roots.push(path.root);
        }
        path.root = roots.len() - 1;
    }
    roots
}

#[cfg(test)]
mod tests {
    use std::{io::Write, path::Path};

    use arrow_array::{Decimal128Array, StringArray};
    use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::{super::source::OpenFile, *};

    fn whole_file() -> Vec<u8> {
        const ROWS: i128 = 3_000;
        let texts = |text: fn(i128) -> String| Arc::new(StringArray::from_iter_values((0..ROWS).map(text)));
        let amounts = Decimal128Array::from_iter_values((0..ROWS).map(|n| n % 500 + 1));
        let amounts: ArrayRef = Arc::new(amounts.with_precision_and_scale(20, 2).expect("a decimal"));
        let columns: [(&str, ArrayRef); 5] = [
            ("account_id", texts(|n| format!("acct-{}", n % 40))),
            ("idempotency_key", texts(|n| format!("key-{n}"))),
            ("direction", texts(|_| "credit".into())),
            ("amount", amounts),
            ("currency", texts(|_| "EUR".into())),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("a batch");
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1_500)).build();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        file
    }

    fn read_all(path: &Path, args: &Args) -> anyhow::Result<u64> {
        let mut source = OpenFile::open(path, None, args)?.source;
        let (mut record, mut rows) = (csv::ByteRecord::new(), 0);
        while source.next(&mut record)? {
            rows += 1;
        }
        Ok(rows)
    }

    /// Some of these files make the Parquet reader panic, so panic messages in the output of this test are expected.
    #[test]
    fn a_file_that_is_damaged_anywhere_gives_an_error_or_other_values_and_never_panics() {
        let whole = whole_file();
        let args = Args::by_default();
        let mut random = SmallRng::seed_from_u64(1);
        let mut errors = 0;
        for _ in 0..120 {
            let mut damaged = whole.clone();
            let at = random.random_range(4..whole.len() - 8);
            for byte in damaged.iter_mut().skip(at).take(random.random_range(1..8)) {
                *byte = random.random();
            }
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            file.write_all(&damaged).expect("written");
            match read_all(file.path(), &args) {
                Ok(rows) => assert!(rows <= 3_000),
                Err(error) => errors += usize::from(!error.to_string().is_empty()),
            }
        }
        assert!(errors > 5, "{errors} of 120 damaged files were refused");
    }
}
