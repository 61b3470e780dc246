//! How much of a Parquet file is in memory at a time, found before anything is read: a page is decoded whole, and how
//! large it is was up to the writer. What would not fit is refused with a word on how to write the file again.
//!
//! Only the headers of the pages are looked at, and what they say is what the reader makes room for; but a page in gzip,
//! or in the frames of LZ4 that early writers made, is decompressed to its end whatever its header says, so such pages
//! are decompressed here and counted. The parquet crate keeps its own reader of headers to itself, so the few fields that
//! matter are read here: a header is a struct in Thrift's compact protocol.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom},
};

use anyhow::ensure;
use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;
use parquet::{
    arrow::ProjectionMask,
    basic::Compression,
    file::metadata::{ColumnChunkMetaData, ParquetMetaData},
};

/// Bytes of all pages that are held at a time. With what else an import holds it stays below 150 MiB.
pub(super) const HELD_BYTES_MAX: u64 = 96 * MIB;
/// The footer describes every column of every row group and is held whole, in several times its size.
const FOOTER_BYTES_MAX: u64 = 8 * MIB;
const MIB: u64 = 1024 * 1024;
const DECOMPRESSION_BUFFER_BYTES: usize = 32 * 1024;
const HEADER_BUFFER_BYTES: usize = 512;
/// A view of a value that stands in a dictionary page.
const VIEW_BYTES: u64 = 16;
/// A view and the levels of a value that is one of many in its row.
const REPEATED_VALUE_BYTES: u64 = 24;
/// The lengths of a value, which some encodings decode for the whole page.
const LENGTHS_BYTES: u64 = 8;
const ENDING: &[u8] = b"PAR1";

/// Refuses a footer that is too large to be held.
pub(super) fn check_footer(mut file: &File) -> anyhow::Result<()> {
    let mut end = [0; 8];
    if file.seek(SeekFrom::End(-8)).and_then(|_| file.read_exact(&mut end)).is_err() {
        return Ok(());
    }
    file.rewind()?;
    let [a, b, c, d, ending @ ..] = end;
    let bytes = u64::from(u32::from_le_bytes([a, b, c, d]));
    ensure!(
        bytes <= FOOTER_BYTES_MAX || ending != ENDING,
        "its footer has {bytes} bytes, and {FOOTER_BYTES_MAX} is the limit; write it again with larger row groups, or \
         as several files"
    );
    Ok(())
}

/// Refuses a wanted column whose compression is not read.
pub(super) fn check_compression(metadata: &ParquetMetaData, wanted: &ProjectionMask) -> anyhow::Result<()> {
    let is_wanted = |(leaf, _): &(usize, &ColumnChunkMetaData)| wanted.leaf_included(*leaf);
    let chunks =
        metadata.row_groups().iter().flat_map(|group| group.columns().iter().enumerate().filter(is_wanted));
    for (_, chunk) in chunks {
        let compression = chunk.compression();
        ensure!(
            !matches!(compression, Compression::BROTLI(_) | Compression::LZO),
            "column {:?} is compressed with {}, which is not read; write it with Snappy, Zstandard, LZ4 or gzip",
            chunk.column_path().string(),
            if compression == Compression::LZO { "LZO" } else { "Brotli" }
        );
    }
    Ok(())
}

/// Refuses a file whose wanted columns would hold more than [`HELD_BYTES_MAX`] at a time. A file that is damaged is left
/// to whoever reads it.
pub(super) fn check(file: &File, metadata: &ParquetMetaData, wanted: &ProjectionMask) -> anyhow::Result<()> {
    let columns = metadata.file_metadata().schema_descr().columns();
    let (mut held, mut largest, mut compressed) = (0, (0, String::new()), 0);
    for (leaf, column) in columns.iter().enumerate().filter(|(leaf, _)| wanted.leaf_included(*leaf)) {
        let mut pages = Pages { is_repeated: column.max_rep_level() > 0, ..Pages::default() };
        for group in metadata.row_groups() {
            if let Some(chunk) = group.columns().get(leaf) {
                // An error here is met again by the reader, after the rows before it.
                let _ = pages.look_at(file, chunk);
            }
        }
        // A batch of rows may reach from one page into the next.
        held += pages.dictionary + 2 * pages.data;
        compressed = compressed.max(pages.compressed);
        largest = largest.max((pages.data.max(pages.dictionary), column.path().string()));
    }
    let (page, column) = largest;
    ensure!(
        held + compressed <= HELD_BYTES_MAX,
        "its pages are too large: {} MiB of them would be held at a time, and {} is the limit (a page of column \
         {column:?} takes {} MiB); write it again with pages of 1 MiB or smaller row groups",
        (held + compressed).div_ceil(MIB),
        HELD_BYTES_MAX / MIB,
        page.div_ceil(MIB)
    );
    Ok(())
}

/// The largest pages of one column, in bytes of memory.
#[derive(Default)]
struct Pages {
    is_repeated: bool,
    dictionary: u64,
    data: u64,
    /// As the largest is on disk; held while it is decompressed.
    compressed: u64,
}

impl Pages {
    fn look_at(&mut self, file: &File, chunk: &ColumnChunkMetaData) -> io::Result<()> {
        let (start, length) = chunk.byte_range();
        let mut file = BufReader::with_capacity(HEADER_BUFFER_BYTES, file);
        let mut position = start;
        while position < start + length {
            file.seek(SeekFrom::Start(position))?;
            let mut header = PageHeader::read(&mut file)?;
            let page = file.stream_position()?;
            file.seek_relative(i64::try_from(header.levels).unwrap_or(i64::MAX))?;
            let body = file.by_ref().take(header.compressed.saturating_sub(header.levels));
            let bytes = match chunk.compression() {
                Compression::GZIP(_) => bytes_of(MultiGzDecoder::new(body)),
                Compression::LZ4 => bytes_of(FrameDecoder::new(body)),
                _ => 0,
            };
            header.uncompressed = header.uncompressed.max(bytes);
            // Without compression the page is used as it was read.
            let is_compressed = chunk.compression() != Compression::UNCOMPRESSED;
            self.compressed = self.compressed.max(if is_compressed { header.compressed } else { 0 });
            self.count(&header);
            position = page + header.compressed;
        }
        Ok(())
    }

    fn count(&mut self, header: &PageHeader) {
        if header.is_dictionary {
            self.dictionary = self.dictionary.max(header.uncompressed + VIEW_BYTES * header.values);
            return;
        }
        let a_value = if self.is_repeated { REPEATED_VALUE_BYTES } else { 0 }
            + if header.has_lengths { LENGTHS_BYTES } else { 0 };
        self.data = self.data.max(header.uncompressed + a_value * header.values);
    }
}

/// How much comes out, as far as it matters; where the input is damaged, or of another framing, how much came before.
fn bytes_of(mut output: impl Read) -> u64 {
    let mut buffer = vec![0; DECOMPRESSION_BUFFER_BYTES];
    let mut bytes = 0;
    while bytes <= HELD_BYTES_MAX {
        match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => bytes += u64::try_from(read).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    bytes
}

/// What a page says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct PageHeader {
    is_dictionary: bool,
    has_lengths: bool,
    uncompressed: u64,
    compressed: u64,
    values: u64,
    /// Bytes of levels before the values, which a data page of the second kind does not compress.
    levels: u64,
}

// Thrift's names for types in the compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I8: u8 = 3;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const STRUCT: u8 = 12;
/// Number of the field that has the encoding in a data page of the second kind.
const ENCODING_OF_SECOND_KIND: i64 = 4;
/// Deeper than any header.
const DEPTH_MAX: u8 = 8;

impl PageHeader {
    fn read(input: &mut impl BufRead) -> io::Result<Self> {
        let mut header = Self::default();
        let mut id = 0;
        while let Some(kind) = next_field(input, &mut id)? {
            match id {
                2 => header.uncompressed = size(input)?,
                3 => header.compressed = size(input)?,
                // A data page of the first kind, a dictionary, a data page of the second kind.
                5 => header.read_of_kind(input, 2)?,
                7 => {
                    header.is_dictionary = true;
                    header.read_of_kind(input, 2)?;
                }
                8 => header.read_of_kind(input, ENCODING_OF_SECOND_KIND)?,
                _ => skip(input, kind, DEPTH_MAX)?,
            }
        }
        Ok(header)
    }

    /// The part that only pages of one kind have; the encoding is its field number `encoding`.
    fn read_of_kind(&mut self, input: &mut impl BufRead, encoding: i64) -> io::Result<()> {
        /// DELTA_LENGTH_BYTE_ARRAY and DELTA_BYTE_ARRAY.
        const WITH_LENGTHS: [u64; 2] = [6, 7];
        let mut id = 0;
        while let Some(kind) = next_field(input, &mut id)? {
            match id {
                1 => self.values = size(input)?,
                5 | 6 if encoding == ENCODING_OF_SECOND_KIND => self.levels += size(input)?,
                field if field == encoding => self.has_lengths = WITH_LENGTHS.contains(&size(input)?),
                _ => skip(input, kind, DEPTH_MAX)?,
            }
        }
        Ok(())
    }
}

/// The type of the next field, whose number replaces `id`; None at the end of the struct.
fn next_field(input: &mut impl BufRead, id: &mut i64) -> io::Result<Option<u8>> {
    let head = byte(input)?;
    if head == 0 {
        return Ok(None);
    }
    *id = match head >> 4 {
        0 => zigzag(varint(input)?),
        step => *id + i64::from(step),
    };
    Ok(Some(head & 0x0f))
}

fn skip(input: &mut impl BufRead, kind: u8, depth: u8) -> io::Result<()> {
    let deeper = || depth.checked_sub(1).ok_or(io::Error::from(ErrorKind::InvalidData));
    match kind {
        TRUE | FALSE => Ok(()),
        I8 => byte(input).map(drop),
        4..=I64 => varint(input).map(drop),
        DOUBLE => skip_bytes(input, 8),
        BINARY => {
            let length = varint(input)?;
            skip_bytes(input, length)
        }
        LIST | SET => {
            let head = byte(input)?;
            let length = if head >> 4 == 0x0f { varint(input)? } else { u64::from(head >> 4) };
            for _ in 0..length {
                match head & 0x0f {
                    // In a list each has a byte of its own.
                    TRUE | FALSE => byte(input).map(drop)?,
                    kind => skip(input, kind, deeper()?)?,
                }
            }
            Ok(())
        }
        STRUCT => {
            let mut id = 0;
            while let Some(kind) = next_field(input, &mut id)? {
                skip(input, kind, deeper()?)?;
            }
            Ok(())
        }
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

fn skip_bytes(input: &mut impl BufRead, length: u64) -> io::Result<()> {
    let skipped = io::copy(&mut input.by_ref().take(length), &mut io::sink())?;
    if skipped == length { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

fn byte(input: &mut impl BufRead) -> io::Result<u8> {
    let mut byte = [0];
    input.read_exact(&mut byte)?;
    let [byte] = byte;
    Ok(byte)
}

fn varint(input: &mut impl BufRead) -> io::Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(input)?;
        value |= u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(ErrorKind::InvalidData.into())
}

fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// A number that cannot be negative.
fn size(input: &mut impl BufRead) -> io::Result<u64> {
    u64::try_from(zigzag(varint(input)?)).map_err(|_| ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    use parquet::{
        arrow::ArrowWriter,
        file::{
            metadata::ParquetMetaDataReader,
            properties::{WriterProperties, WriterVersion},
        },
    };

    use super::*;

    /// A file of one page of 3 MB.
    fn file_of_a_page(version: WriterVersion, compression: Compression) -> Vec<u8> {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(
            (0..300).map(|n| format!("{n:03}{}", "z".repeat(10_000))),
        ));
        let batch = RecordBatch::try_from_iter([("description", texts)]).expect("a batch");
        let properties = WriterProperties::builder()
            .set_writer_version(version)
            .set_compression(compression)
            .set_dictionary_enabled(false)
            .set_data_page_size_limit(100_000_000)
            .build();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        file
    }

    fn written(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        file
    }

    fn chunk_of(file: &File) -> ColumnChunkMetaData {
        ParquetMetaDataReader::new().parse_and_finish(file).expect("a footer").row_group(0).column(0).clone()
    }

    /// Seen to fail when planted: the size that the header says, as it was; such a file took 367 MiB.
    #[test]
    fn a_gzipped_page_that_says_less_than_it_holds_is_counted_as_what_it_holds() {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            let mut file = file_of_a_page(version, Compression::GZIP(parquet::basic::GzipLevel::default()));
            let chunk = chunk_of(&written(&file));
            let start = usize::try_from(chunk.byte_range().0).expect("small");
            // Its kind, then the size uncompressed, four bytes of which now say 1: 3 MB take four.
            file[start + 3..start + 7].copy_from_slice(&[0x82, 0x80, 0x80, 0x00]);
            let mut pages = Pages::default();
            pages.look_at(&written(&file), &chunk).expect("headers");
            assert!((3_000_000..4_000_000).contains(&pages.data), "{version:?}: {}", pages.data);
        }
    }

    /// Early writers put frames where the format means another framing, and the reader takes both. Seen to fail when only
    /// gzip was decompressed.
    #[test]
    fn a_page_in_frames_of_lz4_is_counted_as_what_it_holds() {
        let version = WriterVersion::PARQUET_1_0;
        let mut file = file_of_a_page(version, Compression::LZ4);
        let chunk = chunk_of(&written(&file));
        let mut pages = Pages::default();
        pages.look_at(&written(&file), &chunk).expect("headers");
        assert!((3_000_000..4_000_000).contains(&pages.data), "as it was written: {}", pages.data);

        let (start, length) = chunk.byte_range();
        let (start, end) =
            (usize::try_from(start).expect("small"), usize::try_from(start + length).expect("small"));
        file[start + 3..start + 7].copy_from_slice(&[0x82, 0x80, 0x80, 0x00]);
        let mut rest = &file[start..end];
        let header = PageHeader::read(&mut rest).expect("a header");
        assert_eq!(header.uncompressed, 1);
        let mut frames = lz4_flex::frame::FrameEncoder::new(Vec::new());
        frames.write_all(&[0; 2_000_000]).expect("compressed");
        let mut frames = frames.finish().expect("compressed");
        let body = end - rest.len();
        let room = usize::try_from(header.compressed).expect("small");
        assert!(frames.len() <= room, "{} in {room}", frames.len());
        frames.resize(room, 0);
        file[body..body + room].copy_from_slice(&frames);
        let mut pages = Pages::default();
        pages.look_at(&written(&file), &chunk).expect("headers");
        assert!((2_000_000..3_000_000).contains(&pages.data), "in frames: {}", pages.data);
    }

    /// Not every codec has a writer here, so the footer of a written file is made to say it.
    #[test]
    fn a_compression_that_is_not_read_is_refused_by_the_name_of_the_column() {
        let file = written(&file_of_a_page(WriterVersion::PARQUET_1_0, Compression::SNAPPY));
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).expect("a footer");
        let all = ProjectionMask::all();
        check_compression(&metadata, &all).expect("Snappy is read");
        for (compression, name) in [
            (Compression::BROTLI(parquet::basic::BrotliLevel::default()), "Brotli"),
            (Compression::LZO, "LZO"),
        ] {
            let mut builder = metadata.clone().into_builder();
            let groups = builder.take_row_groups().into_iter().map(|group| {
                let mut group = group.into_builder();
                let chunks = group.take_columns().into_iter();
                let chunks = chunks
                    .map(|chunk| chunk.into_builder().set_compression(compression).build().expect("built"));
                group.set_column_metadata(chunks.collect()).build().expect("built")
            });
            let builder = builder.set_row_groups(groups.collect());
            let metadata = builder.build();
            let error = check_compression(&metadata, &all).expect_err("refused").to_string();
            assert!(error.contains("\"description\"") && error.contains(name), "{error}");
            let none = ProjectionMask::none(1);
            check_compression(&metadata, &none).expect("a column that is left out may have it");
        }
    }

    /// A header with statistics and a list to skip, as a writer of another kind might add: sizes 300 and 200, a page of
    /// 70 values in DELTA_BYTE_ARRAY.
    #[test]
    fn of_a_header_only_what_matters_is_read() {
        let statistics = [0x18, 2, b'a', b'b', 0x19, 0x22, 1, 2, 0x00];
        let mut header = vec![0x15, 0, 0x15, 0xd8, 0x04, 0x15, 0x90, 0x03, 0x2c, 0x15, 0x8c, 0x01, 0x15, 14];
        header.extend([0x15, 6, 0x15, 6, 0x1c]);
        header.extend(statistics);
        header.extend([0x00, 0x00]);
        let read = PageHeader::read(&mut header.as_slice()).expect("a header");
        let expected = PageHeader {
            is_dictionary: false,
            has_lengths: true,
            uncompressed: 300,
            compressed: 200,
            values: 70,
            levels: 0,
        };
        assert_eq!(read, expected);
        for cut in 0..header.len() {
            assert!(PageHeader::read(&mut &header[..cut]).is_err(), "cut at {cut}");
        }
        // Structs in structs without an end must not exhaust the stack.
        assert!(PageHeader::read(&mut [0x1c; 10_000].as_slice()).is_err());
    }
}
