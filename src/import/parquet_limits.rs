//! Refuses a Parquet file that would take too much memory, or whose compression is not supported, before any row is
//! read.
//!
//! A page is decoded as a whole, and the program that wrote the file chose its size. The footer does not state the
//! sizes of pages, but a page is never larger than its column chunk, whose size the footer does state. The limit is
//! therefore on the chunks of a row group. Deliberately absent: protection against a file whose footer states wrong
//! sizes.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
};

use anyhow::ensure;
use parquet::{
    arrow::ProjectionMask,
    basic::Compression,
    file::metadata::{ColumnChunkMetaData, FooterTail, ParquetMetaData, RowGroupMetaData},
    schema::types::SchemaDescriptor,
};

/// The memory that the columns of one row group may take. Most files need much less, because their pages have about 1 MiB.
const ROW_GROUP_BYTES_MAX: u64 = 128 * MIB;
/// The footer describes every column of every row group. Decoded, it takes several times its size.
const FOOTER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Each column is matched with the columns of an import, whether it is ignored or not.
const COLUMNS_MAX: usize = 1_000;
const MIB: u64 = 1024 * 1024;

/// Refuses a footer that is too large. A file without a footer is left to the Parquet reader.
pub(super) fn check_footer(mut file: &File) -> anyhow::Result<()> {
    let mut end = [0; 8];
    if file.seek(SeekFrom::End(-8)).and_then(|_| file.read_exact(&mut end)).is_err() {
        return Ok(());
    }
    file.rewind()?;
    let Ok(footer) = FooterTail::try_new(&end) else { return Ok(()) };
    let bytes = footer.metadata_length();
    ensure!(
        bytes <= FOOTER_BYTES_MAX,
        "its footer has {bytes} bytes, and {FOOTER_BYTES_MAX} is the limit; write it again with larger row groups, or \
         as several files"
    );
    Ok(())
}

/// Refuses a file with too many columns. The fields of a struct count as columns.
pub(super) fn check_columns(schema: &SchemaDescriptor) -> anyhow::Result<()> {
    let columns = schema.num_columns();
    ensure!(
        columns <= COLUMNS_MAX,
        "it has {columns} columns, and {COLUMNS_MAX} is the limit; write it again with the columns of an import only"
    );
    Ok(())
}

/// Refuses a selected column whose compression is not supported.
pub(super) fn check_compression(metadata: &ParquetMetaData, selected: &ProjectionMask) -> anyhow::Result<()> {
    for chunk in metadata.row_groups().iter().flat_map(|group| selected_chunks(group, selected)) {
        let compression = chunk.compression();
        ensure!(
            !matches!(compression, Compression::BROTLI(_) | Compression::LZO),
            "column {:?} is compressed with {}, which is not supported; use Snappy, Zstandard, LZ4 or gzip",
            chunk.column_path().string(),
            if compression == Compression::LZO { "LZO" } else { "Brotli" }
        );
    }
    Ok(())
}

/// Refuses a row group whose selected columns would take more memory than [`ROW_GROUP_BYTES_MAX`].
pub(super) fn check_row_groups(metadata: &ParquetMetaData, selected: &ProjectionMask) -> anyhow::Result<()> {
    for (number, group) in (1_u64..).zip(metadata.row_groups()) {
        let bytes = memory_of(group, selected);
        if bytes <= ROW_GROUP_BYTES_MAX {
            continue;
        }
        let largest = selected_chunks(group, selected).max_by_key(|chunk| uncompressed_bytes(chunk));
        let (column, column_bytes) = largest
            .map_or_else(Default::default, |chunk| (chunk.column_path().string(), uncompressed_bytes(chunk)));
        let rows = rows_that_fit(group, bytes);
        anyhow::bail!(
            "row group {number} is too large: it would take {} MiB of memory, and {} is the limit (column {column:?} \
             takes {} MiB); write the file again with at most {rows} rows in a row group, in pyarrow with row_group_size={rows}",
            bytes.div_ceil(MIB),
            ROW_GROUP_BYTES_MAX / MIB,
            column_bytes.div_ceil(MIB)
        );
    }
    Ok(())
}

fn selected_chunks<'a>(
    group: &'a RowGroupMetaData,
    selected: &'a ProjectionMask,
) -> impl Iterator<Item = &'a ColumnChunkMetaData> {
    let chunks = group.columns().iter().enumerate();
    chunks.filter(|(leaf, _)| selected.leaf_included(*leaf)).map(|(_, chunk)| chunk)
}

/// Returns the size of all chunks decompressed, plus the compressed size of the largest one: a page is kept in both
/// forms while it is decompressed.
fn memory_of(group: &RowGroupMetaData, selected: &ProjectionMask) -> u64 {
    let decompressed = selected_chunks(group, selected).map(uncompressed_bytes);
    let is_compressed = |chunk: &&ColumnChunkMetaData| chunk.compression() != Compression::UNCOMPRESSED;
    let compressed =
        selected_chunks(group, selected).filter(is_compressed).map(|chunk| size(chunk.compressed_size()));
    decompressed.fold(0, u64::saturating_add).saturating_add(compressed.max().unwrap_or(0))
}

fn uncompressed_bytes(chunk: &ColumnChunkMetaData) -> u64 {
    size(chunk.uncompressed_size())
}

/// Returns a size from the footer. A negative size is invalid and counts as too large.
fn size(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Returns the number of rows that take half of the limit, since row groups of one file differ in size.
fn rows_that_fit(group: &RowGroupMetaData, bytes: u64) -> u64 {
    let rows = u128::from(size(group.num_rows())) * u128::from(ROW_GROUP_BYTES_MAX / 2) / u128::from(bytes);
    u64::try_from(rows).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch};
    use parquet::{
        arrow::ArrowWriter,
        file::{
            metadata::{ColumnChunkMetaDataBuilder, ParquetMetaDataReader},
            properties::WriterProperties,
        },
    };

    use super::*;

    /// Returns the footer of a file with the columns `a` and `b`, each in three row groups of 1,000 rows.
    fn footer() -> ParquetMetaData {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..3_000));
        let batch = RecordBatch::try_from_iter([("a", Arc::clone(&values)), ("b", values)]).expect("a batch");
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1_000)).build();
        let mut file = tempfile::tempfile().expect("a file");
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        ParquetMetaDataReader::new().parse_and_finish(&file).expect("a footer")
    }

    /// Returns the same footer with a changed description of column `b`.
    fn with_b(change: impl Fn(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder) -> ParquetMetaData {
        let mut builder = footer().into_builder();
        let groups = builder.take_row_groups().into_iter().map(|group| {
            let mut group = group.into_builder();
            let chunks =
                group.take_columns().into_iter().map(|chunk| match chunk.column_path().string().as_str() {
                    "b" => change(chunk.into_builder()).build().expect("built"),
                    _ => chunk,
                });
            let chunks = chunks.collect();
            group.set_column_metadata(chunks).build().expect("built")
        });
        let groups = groups.collect();
        builder.set_row_groups(groups).build()
    }

    /// Selects the column `a` only.
    fn without_b(metadata: &ParquetMetaData) -> ProjectionMask {
        ProjectionMask::leaves(metadata.file_metadata().schema_descr(), [0])
    }

    #[test]
    fn an_unsupported_compression_is_refused_by_the_name_of_the_column() {
        let all = ProjectionMask::all();
        check_compression(&footer(), &all).expect("supported");
        for (compression, name) in [
            (Compression::BROTLI(parquet::basic::BrotliLevel::default()), "Brotli"),
            (Compression::LZO, "LZO"),
        ] {
            let metadata = with_b(|chunk| chunk.set_compression(compression));
            let error = check_compression(&metadata, &all).expect_err("refused").to_string();
            assert!(error.contains("\"b\"") && error.contains(name), "{error}");
            check_compression(&metadata, &without_b(&metadata)).expect("the column is not selected");
        }
    }

    #[test]
    fn a_large_row_group_is_refused_with_the_number_of_rows_to_use_instead() {
        let all = ProjectionMask::all();
        check_row_groups(&footer(), &all).expect("small");
        let bytes = 192 * 1024 * 1024;
        let large = with_b(|chunk| chunk.set_total_uncompressed_size(bytes));
        let error = check_row_groups(&large, &all).expect_err("refused").to_string();
        for part in [
            "row group 1 is",
            "193 MiB of memory, and 128",
            "column \"b\" takes 192 MiB",
            "row_group_size=333",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
        check_row_groups(&large, &without_b(&large)).expect("the column is not selected");
    }

    #[test]
    fn compressed_pages_count_in_both_forms_and_a_negative_size_is_refused() {
        let all = ProjectionMask::all();
        let most_of_the_limit = 70 * 1024 * 1024;
        let sizes = |chunk: ColumnChunkMetaDataBuilder| {
            chunk.set_total_uncompressed_size(most_of_the_limit).set_total_compressed_size(most_of_the_limit)
        };
        check_row_groups(&with_b(|chunk| sizes(chunk).set_compression(Compression::UNCOMPRESSED)), &all)
            .expect("a page is used as it was read");
        check_row_groups(&with_b(|chunk| sizes(chunk).set_compression(Compression::SNAPPY)), &all)
            .expect_err("a page is decompressed into another buffer");
        check_row_groups(&with_b(|chunk| chunk.set_total_uncompressed_size(-1)), &all).expect_err("wrong");
    }
}
