//! The ways in which Kafka's record batches are compressed, each as Kafka's own clients frame it.
//!
//! What is decompressed is bounded: a few bytes may claim to be terabytes. Measured on batches of events: lz4 shrinks
//! them to a fifth at a fraction of a microsecond each.

use std::{
    borrow::Cow,
    io::{self, Read, Write},
};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

/// A batch is 1 MiB unless the broker is told otherwise, and JSON shrinks to a tenth at best.
const DECOMPRESSED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How many times its size a batch of events takes when it is decompressed, at most as a rule.
const RATIO: usize = 8;

/// How snappy-java begins what it writes, with two version numbers; blocks follow, each with its length before it.
const SNAPPY_MAGIC: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const SNAPPY_BLOCK_BYTES: usize = 32 * 1024;

/// By the numbers of the message format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Why something cannot be decompressed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecompressError {
    #[error("it cannot be decompressed: {0}")]
    Damaged(#[from] io::Error),
    #[error("it is more than {} MiB when decompressed", DECOMPRESSED_BYTES_MAX >> 20)]
    TooLarge,
}

impl Codec {
    /// The configuration has been checked to hold one of these.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "gzip" => Self::Gzip,
            "snappy" => Self::Snappy,
            "lz4" => Self::Lz4,
            "zstd" => Self::Zstd,
            _ => Self::None,
        }
    }

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
        [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd]
            .into_iter()
            .find(|codec| codec.number() == number)
    }

    /// Appends the bytes to `out`, compressed.
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
                // Kafka's reader wants blocks that stand for themselves.
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

    /// The bytes as they were.
    pub(super) fn decompress(self, bytes: &[u8]) -> Result<Cow<'_, [u8]>, DecompressError> {
        Ok(Cow::Owned(match self {
            Self::None => return Ok(Cow::Borrowed(bytes)),
            Self::Gzip => bounded(flate2::read::MultiGzDecoder::new(bytes), bytes.len())?,
            Self::Snappy => snappy_decompress(bytes)?,
            Self::Lz4 => bounded(FrameDecoder::new(bytes), bytes.len())?,
            Self::Zstd => bounded(zstd::Decoder::new(bytes)?, bytes.len())?,
        }))
    }
}

fn bounded(from: impl Read, compressed_bytes: usize) -> Result<Vec<u8>, DecompressError> {
    // A buffer that grows is copied again and again, and what it leaves behind stays with the allocator for a while.
    let mut bytes = Vec::with_capacity((compressed_bytes * RATIO).min(DECOMPRESSED_BYTES_MAX));
    from.take(DECOMPRESSED_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > DECOMPRESSED_BYTES_MAX {
        return Err(DecompressError::TooLarge);
    }
    Ok(bytes)
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

/// In blocks as snappy-java writes it, or in one piece as librdkafka does.
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

    #[test]
    fn a_few_bytes_do_not_become_more_than_memory_holds() {
        for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
            let bomb = codec.compress(&vec![0; DECOMPRESSED_BYTES_MAX + 1], Vec::new()).expect("compressed");
            assert!(matches!(codec.decompress(&bomb), Err(DecompressError::TooLarge)), "{codec:?}");
        }
        // A length of 4 GiB − 1, and nothing behind it.
        let claim = [SNAPPY_MAGIC, &[0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
        for bomb in [&claim[..], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
            assert!(matches!(Codec::Snappy.decompress(bomb), Err(DecompressError::TooLarge)));
        }
    }

    #[test]
    fn snappy_is_read_with_and_without_its_frame() {
        let text = b"a text of some length, a text of some length".repeat(2000);
        let framed = Codec::Snappy.compress(&text, Vec::new()).expect("compressed");
        assert!(framed.starts_with(SNAPPY_MAGIC));
        let bare = snap::raw::Encoder::new().compress_vec(&text).expect("compressed");
        for bytes in [framed, bare] {
            assert_eq!(Codec::Snappy.decompress(&bytes).expect("decompressed"), text);
        }
        assert!(Codec::Snappy.decompress(&[SNAPPY_MAGIC, &[0, 0, 0, 9, 1]].concat()).is_err());
    }
}
