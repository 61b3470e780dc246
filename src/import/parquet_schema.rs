//! The columns of a Parquet file: their names, their Arrow types and their positions in a batch.
//!
//! The fields of a struct are columns of their own: a struct `metadata` gives the columns `metadata.NAME`.

use std::{fs::File, sync::Arc};

use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
    basic::LogicalType,
    file::metadata::{ParquetMetaData, ParquetStatisticsPolicy},
};

/// The location of a column in a batch: a root column, or a field of a root column that is a struct.
#[derive(Debug, Clone, Copy)]
pub(super) struct ColumnPath {
    pub(super) root: usize,
    pub(super) child: Option<usize>,
}

/// A column with the name that the file gives it.
pub(super) struct NamedColumn {
    pub(super) name: String,
    pub(super) path: ColumnPath,
    pub(super) field: FieldRef,
    /// Whether the file declares the column's 16 bytes to be a UUID.
    pub(super) is_uuid: bool,
}

/// Reads the footer, without the statistics, which only queries need.
pub(super) fn read_footer(file: &File) -> anyhow::Result<ArrowReaderMetadata> {
    Ok(ArrowReaderMetadata::load(file, options())?)
}

fn options() -> ArrowReaderOptions {
    ArrowReaderOptions::new()
        .with_skip_arrow_metadata(true)
        .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
}

/// Determines the types in which the columns are read.
///
/// The types are those that Parquet declares, not the Arrow types that a writer may have stored as well: Parquet
/// has fewer types, and no dictionaries. Timestamps in whole seconds are the exception: Parquet cannot declare them, so
/// their type is taken from the stored Arrow schema.
pub(super) fn with_types_to_read(declared: &ArrowReaderMetadata) -> anyhow::Result<ArrowReaderMetadata> {
    let metadata = declared.metadata();
    let stored = ArrowReaderMetadata::try_new(Arc::clone(metadata), ArrowReaderOptions::new()).ok();
    let stored_field = |name: &str| stored.as_ref()?.schema().field_with_name(name).ok().cloned();
    let fields = declared.schema().fields().iter().map(|field| match stored_field(field.name()) {
        Some(stored) if matches!(stored.data_type(), DataType::Timestamp(TimeUnit::Second, _)) => {
            Arc::new(stored)
        }
        _ => with_views(field),
    });
    let schema = Schema::new(fields.collect::<Fields>());
    Ok(ArrowReaderMetadata::try_new(Arc::clone(metadata), options().with_schema(Arc::new(schema)))?)
}

/// Returns the same field with texts as views into their page, which are not copied.
fn with_views(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Utf8 => DataType::Utf8View,
        DataType::Binary => DataType::BinaryView,
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(with_views).collect()),
        DataType::Map(entries, sorted) => DataType::Map(with_views(entries), *sorted),
        _ => return Arc::clone(field),
    };
    Arc::new(Field::clone(field).with_data_type(data_type))
}

/// Returns the columns in the order of the file. A struct is replaced by its fields, unless it is ignored as a whole.
pub(super) fn columns_of(footer: &ArrowReaderMetadata, ignore: &[String]) -> Vec<NamedColumn> {
    let column = |name: String, path, field: &FieldRef| {
        let is_uuid = is_uuid(footer.metadata(), &name);
        NamedColumn { name, path, field: Arc::clone(field), is_uuid }
    };
    let mut columns = Vec::new();
    for (root, field) in footer.schema().fields().iter().enumerate() {
        let name = field.name();
        match field.data_type() {
            DataType::Struct(children) if !ignore.contains(name) => {
                columns.extend(children.iter().enumerate().map(|(child, field)| {
                    let path = ColumnPath { root, child: Some(child) };
                    column(format!("{name}.{}", field.name()), path, field)
                }));
            }
            _ => columns.push(column(name.clone(), ColumnPath { root, child: None }, field)),
        }
    }
    columns
}

fn is_uuid(metadata: &ParquetMetaData, name: &str) -> bool {
    let columns = metadata.file_metadata().schema_descr().columns();
    let column = columns.iter().find(|column| column.path().parts().join(".") == name);
    column.is_some_and(|column| column.logical_type_ref() == Some(&LogicalType::Uuid))
}
