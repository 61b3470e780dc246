//! Parquet files, a few rows at a time in the order of the file.
//!
//! Columns are those of CSV; a struct `metadata` gives the columns `metadata.NAME`. Memory is bounded by two pages
//! of each column, however large the row groups are: texts are read as views into their page, and a file whose pages
//! are too large for that is refused.

use std::{
    cell::Cell,
    fs::File,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Once},
};

use anyhow::{Context as _, ensure};
use arrow_array::{Array, ArrayRef, RecordBatch, cast::AsArray};
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
            ParquetRecordBatchReaderBuilder,
        },
    },
    basic::LogicalType,
    file::metadata::{ParquetMetaData, ParquetStatisticsPolicy},
};

use super::{
    Args,
    columns::{self, Column},
    parquet_cell::{self, Zeros},
    parquet_pages,
};

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 1024;

/// An open Parquet file.
pub(super) struct ParquetFile {
    columns: Vec<Column>,
    /// Where in a batch the values of each column are; None for those to leave out.
    places: Vec<Option<Place>>,
    batches: ParquetRecordBatchReader,
    /// The values of the current batch, as `places` has them.
    values: Vec<Option<Values>>,
    batch_rows: usize,
    next_row: usize,
    /// Renders one cell after the other.
    text: Vec<u8>,
    rows_read: u64,
    rows_total: u64,
    bytes_total: u64,
}

/// A column, or a field of a struct.
#[derive(Debug, Clone, Copy)]
struct Place {
    root: usize,
    child: Option<usize>,
}

/// Of one column, in the current batch.
struct Values {
    /// Where this is null, its fields are.
    parent: Option<ArrayRef>,
    array: ArrayRef,
    zeros: Zeros,
}

/// What the file calls one of its columns, or a field of a struct.
struct Heading {
    name: String,
    place: Place,
    field: FieldRef,
}

impl ParquetFile {
    pub(super) fn open(file: File, args: &Args) -> anyhow::Result<Self> {
        let bytes_total = file.metadata()?.len();
        parquet_pages::check_footer(&file)?;
        let metadata = undamaged(|| metadata(&file))?.context("is no whole Parquet file")?;
        let rows_total = metadata.metadata().file_metadata().num_rows();
        let headings = headings(metadata.schema(), &args.ignore);
        let names = headings.iter().map(|heading| heading.name.as_str());
        let columns = columns::parse(names, &args.ignore).map_err(anyhow::Error::msg)?;
        for (column, heading) in columns.iter().zip(&headings) {
            let is_uuid = is_uuid(metadata.metadata(), &heading.name);
            parquet_cell::check(column, heading.field.data_type(), is_uuid, args.assume_utc)
                .map_err(|problem| anyhow::anyhow!("column {:?} {problem}", heading.name))?;
        }
        let mut roots: Vec<usize> = wanted(&columns, &headings).map(|place| place.root).collect();
        roots.dedup();
        let places = wanted_or_none(&columns, &headings)
            .map(|place| {
                let place = place?;
                let root = roots.iter().position(|root| *root == place.root)?;
                Some(Place { root, ..place })
            })
            .collect();
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
        parquet_pages::check_compression(metadata.metadata(), &mask)?;
        undamaged(|| parquet_pages::check(&file, metadata.metadata(), &mask))??;
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()?;
        Ok(Self {
            columns,
            places,
            batches,
            values: Vec::new(),
            batch_rows: 0,
            next_row: 0,
            text: Vec::new(),
            rows_read: 0,
            rows_total: u64::try_from(rows_total).unwrap_or(0),
            bytes_total,
        })
    }

    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(super) fn next(&mut self, record: &mut csv::ByteRecord) -> anyhow::Result<bool> {
        while self.next_row >= self.batch_rows {
            // The views of the last batch hold its pages.
            self.values.clear();
            let Some(batch) = undamaged(|| self.batches.next())? else {
                ensure!(
                    self.rows_read == self.rows_total,
                    "the file ends early, {} rows were promised",
                    self.rows_total
                );
                return Ok(false);
            };
            self.take_up(&batch?);
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

    fn take_up(&mut self, batch: &RecordBatch) {
        self.batch_rows = batch.num_rows();
        self.next_row = 0;
        self.values = self
            .places
            .iter()
            .zip(&self.columns)
            .map(|(place, column)| Values::at((*place)?, column, batch))
            .collect();
    }

    /// By the share of the rows.
    pub(super) fn bytes_read(&self) -> u64 {
        if self.rows_read >= self.rows_total {
            return self.bytes_total;
        }
        let bytes = u128::from(self.bytes_total) * u128::from(self.rows_read) / u128::from(self.rows_total);
        u64::try_from(bytes).unwrap_or(self.bytes_total)
    }
}

impl Values {
    fn at(place: Place, column: &Column, batch: &RecordBatch) -> Option<Self> {
        let zeros = Zeros::of(column);
        let root = batch.columns().get(place.root)?;
        let Some(child) = place.child else {
            return Some(Self { parent: None, array: Arc::clone(root), zeros });
        };
        let array = Arc::clone(root.as_struct_opt()?.columns().get(child)?);
        Some(Self { parent: Some(Arc::clone(root)), array, zeros })
    }

    /// Appends the text of a value; nothing for a null.
    fn render(&self, row: usize, text: &mut Vec<u8>) -> anyhow::Result<()> {
        let is_absent =
            self.parent.as_ref().is_some_and(|parent| parent.is_null(row)) || self.array.is_null(row);
        if is_absent { Ok(()) } else { parquet_cell::render(&self.array, row, self.zeros, text) }
    }
}

thread_local! {
    static MAY_MEET_DAMAGE: Cell<bool> = const { Cell::new(false) };
}

/// Whole files are read without a panic; damaged ones may meet an assertion of the Parquet reader. It is not used again
/// after one, and what the assertion says, in words of the reader's own code, is not printed.
fn undamaged<T>(read: impl FnOnce() -> T) -> anyhow::Result<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            if !MAY_MEET_DAMAGE.get() {
                usual(panicked);
            }
        }));
    });
    MAY_MEET_DAMAGE.set(true);
    let read = panic::catch_unwind(AssertUnwindSafe(read));
    MAY_MEET_DAMAGE.set(false);
    read.map_err(|_| anyhow::anyhow!("the Parquet file is damaged"))
}

/// The footer without the statistics that only a query would need. The types are those that Parquet itself declares,
/// not those that a writer kept for itself beside them: fewer, and never a dictionary. Only moments in whole seconds
/// are unknown to Parquet, and are what the writer says.
fn metadata(file: &File) -> anyhow::Result<ArrowReaderMetadata> {
    let options = ArrowReaderOptions::new()
        .with_skip_arrow_metadata(true)
        .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll);
    let declared = ArrowReaderMetadata::load(file, options.clone())?;
    let metadata = declared.metadata();
    let kept = ArrowReaderMetadata::try_new(Arc::clone(metadata), ArrowReaderOptions::new()).ok();
    let kept_field = |name: &str| kept.as_ref()?.schema().field_with_name(name).ok().cloned();
    let fields = declared.schema().fields().iter().map(|field| match kept_field(field.name()) {
        Some(kept) if matches!(kept.data_type(), DataType::Timestamp(TimeUnit::Second, _)) => Arc::new(kept),
        _ => viewed(field),
    });
    let schema = Schema::new(fields.collect::<Fields>());
    Ok(ArrowReaderMetadata::try_new(Arc::clone(metadata), options.with_schema(Arc::new(schema)))?)
}

/// The same field with texts as views.
fn viewed(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Utf8 => DataType::Utf8View,
        DataType::Binary => DataType::BinaryView,
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(viewed).collect()),
        DataType::Map(entries, sorted) => DataType::Map(viewed(entries), *sorted),
        _ => return Arc::clone(field),
    };
    Arc::new(Field::clone(field).with_data_type(data_type))
}

/// The columns of the file, with the fields of a struct in its place.
fn headings(schema: &Schema, ignore: &[String]) -> Vec<Heading> {
    let mut headings = Vec::new();
    for (root, field) in schema.fields().iter().enumerate() {
        let name = field.name();
        match field.data_type() {
            DataType::Struct(children) if !ignore.contains(name) => {
                headings.extend(children.iter().enumerate().map(|(child, field)| Heading {
                    name: format!("{name}.{}", field.name()),
                    place: Place { root, child: Some(child) },
                    field: Arc::clone(field),
                }));
            }
            _ => headings.push(Heading {
                name: name.clone(),
                place: Place { root, child: None },
                field: Arc::clone(field),
            }),
        }
    }
    headings
}

fn wanted_or_none<'a>(
    columns: &'a [Column],
    headings: &'a [Heading],
) -> impl Iterator<Item = Option<Place>> + 'a {
    columns
        .iter()
        .zip(headings)
        .map(|(column, heading)| (*column != Column::Ignored).then_some(heading.place))
}

fn wanted<'a>(columns: &'a [Column], headings: &'a [Heading]) -> impl Iterator<Item = Place> + 'a {
    wanted_or_none(columns, headings).flatten()
}

/// Whether the file says that these 16 bytes are a UUID.
fn is_uuid(metadata: &ParquetMetaData, name: &str) -> bool {
    let columns = metadata.file_metadata().schema_descr().columns();
    let column = columns.iter().find(|column| column.path().parts().join(".") == name);
    column.is_some_and(|column| column.logical_type_ref() == Some(&LogicalType::Uuid))
}

#[cfg(test)]
mod tests {
    use std::{io::Write, path::Path};

    use arrow_array::{Decimal128Array, StringArray};
    use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::{super::source::Opened, *};

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
        let mut source = Opened::open(path, args)?.source;
        let (mut record, mut rows) = (csv::ByteRecord::new(), 0);
        while source.next(&mut record)? {
            rows += 1;
        }
        Ok(rows)
    }

    /// Before the reader's panics were caught, some such files ended the whole program.
    #[test]
    fn damage_anywhere_is_an_error_or_other_values_but_never_a_panic() {
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
