//! Compresses and decompresses record batches, in the framing of Kafka's own clients.
//!
//! Guarantees: the decompressed size is bounded, because a few bytes may claim to be terabytes.
//! Measured on batches of events: lz4 shrinks them to a fifth and costs a fraction of a microsecond for each event.

use std::io::{self, Read, Write};

use bytes::Bytes;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use crate::config::Compression;

/// The largest decompressed batch. A batch is 1 MiB by default, and JSON shrinks to a tenth at best.
const DECOMPRESSED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The usual size of a piece: about a hundred events. A larger record makes its piece larger.
const PIECE_BYTES: usize = 64 * 1024;
/// The usual ratio of the decompressed to the compressed size, at most.
const DECOMPRESSION_RATIO: usize = 8;

/// The header that snappy-java writes, with two version numbers. Blocks follow, each after its length.
const SNAPPY_MAGIC: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const SNAPPY_BLOCK_BYTES: usize = 32 * 1024;

/// Why a batch cannot be decompressed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecompressError {
    #[error("it cannot be decompressed: {0}")]
    Damaged(#[from] io::Error),
    #[error("it is larger than {} MiB when decompressed", DECOMPRESSED_BYTES_MAX >> 20)]
    TooLarge,
}

impl Compression {
    /// Returns the number of the compression in the message format.
    pub(super) fn number(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    pub(super) fn from_number(number: i16) -> Option<Self> {
        let mut all = Self::ALL.into_iter().map(|(_, compression)| compression);
        all.find(|compression| compression.number() == number)
    }

    /// Compresses the bytes and appends them to `out`.
    pub(super) fn compress(self, bytes: &[u8], mut out: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::None => {
                out.extend_from_slice(bytes);
                Ok(out)
            }
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Self::Snappy => {
                snappy_compress(bytes, &mut out)?;
                Ok(out)
            }
            Self::Lz4 => {
                // Kafka's reader requires independent blocks.
                let frame =
                    FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
                let mut encoder = FrameEncoder::with_frame_info(frame, out);
                encoder.write_all(bytes)?;
                Ok(encoder.finish()?)
            }
            Self::Zstd => {
                let mut encoder = zstd::Encoder::new(out, zstd::DEFAULT_COMPRESSION_LEVEL)?;
                encoder.write_all(bytes)?;
                encoder.finish()
            }
        }
    }

    /// Begins to decompress; the pieces hold the result.
    pub(super) fn decompress(self, bytes: &Bytes) -> Result<Pieces<'_>, DecompressError> {
        let source = match self {
            Self::None => Source::Whole(bytes.clone()),
            Self::Snappy => Source::Whole(snappy_decompress(bytes)?.into()),
            Self::Gzip => Source::Stream(Box::new(flate2::read::MultiGzDecoder::new(&bytes[..]))),
            Self::Lz4 => Source::Stream(Box::new(FrameDecoder::new(&bytes[..]))),
            Self::Zstd => Source::Stream(Box::new(zstd::Decoder::new(&bytes[..])?)),
        };
        Ok(Pieces { source, piece_bytes: PIECE_BYTES.min(bytes.len() * DECOMPRESSION_RATIO), bytes: 0 })
    }
}

/// A decompressed batch in pieces, so that a few records do not keep a whole batch of a megabyte in memory.
///
/// A Snappy batch, and a batch without compression, is a single piece.
pub(super) struct Pieces<'a> {
    source: Source<'a>,
    /// The usual size of a piece. It is smaller for a small batch.
    piece_bytes: usize,
    /// Bytes returned so far.
    bytes: usize,
}

enum Source<'a> {
    Whole(Bytes),
    Stream(Box<dyn Read + Send + 'a>),
}

impl Pieces<'_> {
    /// Returns the next piece: the unread `rest` of the last piece and the bytes after it. It has at least `wanted` bytes
    /// unless the batch ends before.
    pub(super) fn next(&mut self, rest: &[u8], wanted: usize) -> Result<Bytes, DecompressError> {
        let stream = match &mut self.source {
            Source::Whole(bytes) if rest.is_empty() => {
                self.bytes += bytes.len();
                return Ok(std::mem::take(bytes));
            }
            Source::Whole(_) => return Ok(Bytes::new()),
            Source::Stream(stream) => stream,
        };
        if self.bytes + wanted.saturating_sub(rest.len()) > DECOMPRESSED_BYTES_MAX {
            return Err(DecompressError::TooLarge);
        }
        let room = wanted.max(self.piece_bytes).max(rest.len() + 1);
        let mut piece = Vec::with_capacity(room);
        piece.extend_from_slice(rest);
        stream.take((room - rest.len()) as u64).read_to_end(&mut piece)?;
        self.bytes += piece.len() - rest.len();
        if self.bytes > DECOMPRESSED_BYTES_MAX {
            return Err(DecompressError::TooLarge);
        }
        piece.shrink_to_fit();
        Ok(piece.into())
    }

    /// Returns the size of all pieces so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn snappy_compress(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(SNAPPY_MAGIC);
    let mut encoder = snap::raw::Encoder::new();
    for block in bytes.chunks(SNAPPY_BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block)?;
        let length = i32::try_from(compressed.len()).map_err(io::Error::other)?;
        out.extend(length.to_be_bytes());
        out.extend(compressed);
    }
    Ok(())
}

/// Reads blocks, as snappy-java writes them, or one block without a header, as librdkafka does.
fn snappy_decompress(bytes: &[u8]) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::new();
    let Some(mut rest) = bytes.strip_prefix(SNAPPY_MAGIC) else {
        append_snappy_block(bytes, &mut out)?;
        return Ok(out);
    };
    let cut_off = || io::Error::from(io::ErrorKind::UnexpectedEof);
    while let Some((length, blocks)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(io::Error::other)?;
        let (block, others) = blocks.split_at_checked(length).ok_or_else(cut_off)?;
        append_snappy_block(block, &mut out)?;
        rest = others;
    }
    // Every record of the batch keeps this buffer alive.
    out.shrink_to_fit();
    Ok(out)
}

fn append_snappy_block(block: &[u8], out: &mut Vec<u8>) -> Result<(), DecompressError> {
    let length = snap::raw::decompress_len(block).map_err(io::Error::from)?;
    if out.len() + length > DECOMPRESSED_BYTES_MAX {
        return Err(DecompressError::TooLarge);
    }
    out.extend(snap::raw::Decoder::new().decompress_vec(block).map_err(io::Error::from)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(compression: Compression, bytes: Vec<u8>) -> Result<Vec<u8>, DecompressError> {
        let bytes = Bytes::from(bytes);
        let mut pieces = compression.decompress(&bytes)?;
        let mut all = Vec::new();
        loop {
            let piece = pieces.next(&[], 0)?;
            if piece.is_empty() {
                return Ok(all);
            }
            all.extend(piece);
        }
    }

    #[test]
    fn a_piece_begins_with_the_rest_of_the_last_piece_and_has_the_wanted_length() {
        let text: Vec<u8> = (0..PIECE_BYTES * 3).map(|index| (index % 251).to_le_bytes()[0]).collect();
        for (_, compression) in Compression::ALL {
            let bytes = Bytes::from(compression.compress(&text, Vec::new()).expect("compressed"));
            let mut pieces = compression.decompress(&bytes).expect("pieces");
            let first = pieces.next(&[], 0).expect("a piece");
            assert!(!first.is_empty() && text.starts_with(&first), "{compression:?}");
            let (_, rest) = first.split_at(first.len() - 10);
            let second = pieces.next(rest, PIECE_BYTES + 100).expect("a piece");
            if first.len() == text.len() {
                assert!(second.is_empty(), "{compression:?}: a single piece has no next one");
                continue;
            }
            assert_eq!(second.len(), PIECE_BYTES + 100, "{compression:?}");
            assert!(text[first.len() - 10..].starts_with(&second), "{compression:?}");
            assert_eq!(pieces.bytes(), first.len() + second.len() - 10);
        }
    }

    #[test]
    fn a_small_batch_that_decompresses_beyond_the_limit_is_refused() {
        for compression in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
            let bomb =
                compression.compress(&vec![0; DECOMPRESSED_BYTES_MAX + 1], Vec::new()).expect("compressed");
            assert!(matches!(whole(compression, bomb), Err(DecompressError::TooLarge)), "{compression:?}");
        }
        // A claimed length of 4 GiB − 1 without content.
        let claim = [SNAPPY_MAGIC, &[0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
        for bomb in [&claim[..], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
            assert!(matches!(whole(Compression::Snappy, bomb.to_vec()), Err(DecompressError::TooLarge)));
        }
    }

    #[test]
    fn snappy_is_read_with_and_without_the_header_of_snappy_java() {
        let text = b"a text of some length, a text of some length".repeat(2000);
        let framed = Compression::Snappy.compress(&text, Vec::new()).expect("compressed");
        assert!(framed.starts_with(SNAPPY_MAGIC));
        let bare = snap::raw::Encoder::new().compress_vec(&text).expect("compressed");
        for bytes in [framed, bare] {
            assert_eq!(whole(Compression::Snappy, bytes).expect("decompressed"), text);
        }
        assert!(whole(Compression::Snappy, [SNAPPY_MAGIC, &[0, 0, 0, 9, 1]].concat()).is_err());
    }
}
