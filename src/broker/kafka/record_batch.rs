//! Encodes and decodes record batches in Kafka's message format 2 (KIP-98,
//! <https://kafka.apache.org/documentation/#recordbatch>). Produce requests and fetch answers carry them.
//!
//! ```text
//! base offset │ length │ leader epoch │ format │ checksum │ attributes … record count │ records, maybe compressed
//! └───────────────────────────── 61 bytes ──────────────────────────────────────────┘
//! ```
//!
//! Guarantees: the bytes of headers are kept. The memory of one `decode` call is bounded, however well the batches were
//! compressed; a single batch beyond the bound is refused with an error.
//! Deliberately absent: formats 0 and 1, which Kafka 4 no longer supports, and the filtering of aborted transactions.

use std::ops::Range;

use bytes::Bytes;
use chrono::DateTime;

use super::compression::{DecompressError, Pieces};
use crate::{
    broker::{FetchedRecord, OutgoingRecord},
    config::Compression,
    event::{Headers, put_sized, put_varint, sized_size, take_sized, take_varint, varint_size},
};

const FORMAT: i8 = 2;
/// The producer id of a producer that is neither idempotent nor transactional.
const NO_PRODUCER_ID: i64 = -1;
/// The fields from the base offset to the record count.
const PREFIX_BYTES: usize = 61;
/// The length field counts the bytes from here on.
const LENGTH_END: usize = 12;
const CHECKSUM_START: usize = 17;
/// The checksum covers the bytes from here on.
const CHECKSUM_END: usize = 21;
/// The decoded size after which one call begins no further batch.
const DECODED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most records of one batch. A batch of 1 MiB can hold a hundred thousand small ones.
const RECORDS_MAX: usize = 500_000;
/// The longest number: 64 bits, seven in each byte.
const VARINT_BYTES_MAX: usize = 10;
/// The most records that memory is reserved for at once, because a batch may claim more records than it has.
const RECORDS_RESERVED_MAX: usize = 10_000;

const CODEC_BITS: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const CONTROL: i16 = 1 << 5;

/// Why a batch cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    #[error("it ends in the middle of a record")]
    CutOff,
    #[error("it contains an impossible number or length")]
    Impossible,
    #[error("its checksum is wrong")]
    Damaged,
    #[error("its message format is {0}; only format 2 (Kafka 0.11 and later) is supported")]
    Format(i8),
    #[error("it claims to have {0} records; the limit is {RECORDS_MAX}")]
    TooMany(usize),
    #[error("its compression is unknown: {0}")]
    UnknownCompression(i16),
    #[error(transparent)]
    Decompress(#[from] DecompressError),
}

/// Encodes all records as one batch. Fails only if the batch is too large for the format.
pub(super) fn encode(records: &[OutgoingRecord], compression: Compression) -> std::io::Result<Vec<u8>> {
    let times = || records.iter().map(|record| record.timestamp.timestamp_millis());
    let first_time = times().next().unwrap_or(0);
    let mut body = Vec::with_capacity(records.iter().map(record_bytes_max).sum());
    for (record, index) in records.iter().zip(0_i64..) {
        put_record(&mut body, record, record.timestamp.timestamp_millis() - first_time, index);
    }
    let count = i32::try_from(records.len()).map_err(std::io::Error::other)?;
    let mut batch = Vec::with_capacity(PREFIX_BYTES + body.len());
    batch.extend(0_i64.to_be_bytes()); // base offset, which the broker replaces
    batch.extend([0; 4]); // length, filled in below
    batch.extend((-1_i32).to_be_bytes()); // partition leader epoch
    batch.extend(FORMAT.to_be_bytes());
    batch.extend([0; 4]); // checksum, filled in below
    batch.extend(compression.number().to_be_bytes());
    batch.extend((count - 1).to_be_bytes()); // last offset delta
    batch.extend(first_time.to_be_bytes());
    batch.extend(times().max().unwrap_or(first_time).to_be_bytes());
    batch.extend(NO_PRODUCER_ID.to_be_bytes()); // producer id
    batch.extend((-1_i16).to_be_bytes()); // producer epoch
    batch.extend((-1_i32).to_be_bytes()); // base sequence
    batch.extend(count.to_be_bytes());
    let mut batch = compression.compress(&body, batch)?;
    let length = i32::try_from(batch.len() - LENGTH_END).map_err(std::io::Error::other)?;
    fill(&mut batch, LENGTH_END - 4, length.to_be_bytes());
    let checksum = crc32c::crc32c(batch.get(CHECKSUM_END..).unwrap_or_default());
    fill(&mut batch, CHECKSUM_START, checksum.to_be_bytes());
    Ok(batch)
}

fn fill(batch: &mut [u8], at: usize, bytes: [u8; 4]) {
    if let Some(gap) = batch.get_mut(at..at + 4) {
        gap.copy_from_slice(&bytes);
    }
}

/// Returns an upper bound of the encoded size.
fn record_bytes_max(record: &OutgoingRecord) -> usize {
    let optional = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    40 + optional(&record.key) + optional(&record.value) + record.headers.encoded().len()
}

fn put_record(out: &mut Vec<u8>, record: &OutgoingRecord, time_delta: i64, offset_delta: i64) {
    let (key, value) = (record.key.as_deref(), record.value.as_deref());
    let headers = &record.headers;
    let length = 1
        + varint_size(time_delta)
        + varint_size(offset_delta)
        + sized_size(key)
        + sized_size(value)
        + varint_size(signed(headers.len()))
        + headers.encoded().len();
    put_varint(out, signed(length));
    out.push(0); // attributes, unused
    put_varint(out, time_delta);
    put_varint(out, offset_delta);
    put_sized(out, key);
    put_sized(out, value);
    put_varint(out, signed(headers.len()));
    out.extend_from_slice(headers.encoded());
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// The batches of a fetch answer.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) records: Vec<FetchedRecord>,
    /// The offset after the last batch.
    pub(super) next_offset: i64,
    /// The leader epoch of the last batch, if there is a batch and it has one.
    pub(super) leader_epoch: Option<i32>,
}

/// Decodes the records of all complete batches from `offset` on. A fetch answer may end in the middle of a batch, and its
/// first batch may begin before `offset`.
pub(super) fn decode(bytes: &Bytes, offset: i64) -> Result<Decoded, BatchError> {
    let mut rest = Reader(bytes);
    let mut found = Decoded { records: Vec::new(), next_offset: offset, leader_epoch: None };
    let mut decoded_bytes = 0;
    while rest.0.len() >= LENGTH_END && decoded_bytes < DECODED_BYTES_MAX {
        let base_offset = rest.i64()?;
        let length = usize::try_from(rest.i32()?).map_err(|_| BatchError::Impossible)?;
        if length > rest.0.len() {
            break;
        }
        let batch = bytes.slice_ref(rest.take(length)?);
        let decoded = decode_batch(&batch, base_offset, offset, &mut found.records)?;
        if decoded.end > found.next_offset {
            found.next_offset = decoded.end;
            found.leader_epoch = decoded.leader_epoch;
        }
        decoded_bytes += decoded.bytes;
    }
    Ok(found)
}

/// A decoded batch.
struct DecodedBatch {
    /// The offset after the batch.
    end: i64,
    /// Which leader appended it.
    leader_epoch: Option<i32>,
    /// The memory that the batch takes when decompressed.
    bytes: usize,
}

fn decode_batch(
    bytes: &Bytes,
    base_offset: i64,
    offset: i64,
    records: &mut Vec<FetchedRecord>,
) -> Result<DecodedBatch, BatchError> {
    let mut batch = Reader(bytes);
    let leader_epoch = Some(batch.i32()?).filter(|epoch| *epoch >= 0);
    let format = batch.i8()?;
    if format != FORMAT {
        return Err(BatchError::Format(format));
    }
    let checksum = u32::from_be_bytes(batch.array()?);
    if crc32c::crc32c(batch.0) != checksum {
        return Err(BatchError::Damaged);
    }
    let attributes = batch.i16()?;
    let end = base_offset.wrapping_add(i64::from(batch.i32()?)).wrapping_add(1);
    let first_time = batch.i64()?;
    let last_time = batch.i64()?;
    batch.take(8 + 2 + 4)?; // producer id and epoch, base sequence
    let count = usize::try_from(batch.i32()?).map_err(|_| BatchError::Impossible)?;
    if attributes & CONTROL != 0 {
        return Ok(DecodedBatch { end, leader_epoch, bytes: 0 });
    }
    if count > RECORDS_MAX {
        return Err(BatchError::TooMany(count));
    }
    let number = attributes & CODEC_BITS;
    let compression = Compression::from_number(number).ok_or(BatchError::UnknownCompression(number))?;
    let body = bytes.slice_ref(batch.0);
    let mut pieces = compression.decompress(&body)?;
    // Records are slices of their piece.
    let mut piece = Bytes::new();
    records.reserve(count.min(RECORDS_RESERVED_MAX));
    for _ in 0..count {
        let whole = next_record(&mut piece, &mut pieces)?;
        let mut record = Reader(&whole);
        record.i8()?; // attributes
        let time = first_time.wrapping_add(record.varint()?);
        let time = if attributes & LOG_APPEND_TIME != 0 { last_time } else { time };
        let found = FetchedRecord {
            offset: base_offset.wrapping_add(record.varint()?),
            key: record.optional_bytes()?.map(|key| whole.slice_ref(key)),
            value: record.optional_bytes()?.map(|value| whole.slice_ref(value)),
            headers: record.headers(&whole)?,
            timestamp: DateTime::from_timestamp_millis(time).unwrap_or_default(),
            leader_epoch,
        };
        if found.offset >= offset {
            records.push(found);
        }
    }
    Ok(DecodedBatch { end, leader_epoch, bytes: pieces.bytes() + count * size_of::<FetchedRecord>() })
}

/// Takes the next record, without its length, from the front of the piece or of the next piece.
fn next_record(piece: &mut Bytes, pieces: &mut Pieces<'_>) -> Result<Bytes, BatchError> {
    loop {
        let wanted = match record_length(piece)? {
            Some(length) if length.end <= piece.len() => {
                let mut record = piece.split_to(length.end);
                return Ok(record.split_off(length.start));
            }
            Some(length) => length.end,
            None => piece.len() + 1,
        };
        let next = pieces.next(piece, wanted)?;
        if next.len() < wanted {
            return Err(BatchError::CutOff);
        }
        *piece = next;
    }
}

/// Returns the range of the first record, or `None` if even its length is cut off.
fn record_length(bytes: &[u8]) -> Result<Option<Range<usize>>, BatchError> {
    let mut rest = bytes;
    match take_varint(&mut rest) {
        Some(length) => {
            let length = usize::try_from(length).map_err(|_| BatchError::Impossible)?;
            let start = bytes.len() - rest.len();
            Ok(Some(start..start.checked_add(length).ok_or(BatchError::Impossible)?))
        }
        None if bytes.len() < VARINT_BYTES_MAX => Ok(None),
        None => Err(BatchError::Impossible),
    }
}

/// Reads fields from the front of the remaining bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], BatchError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(BatchError::CutOff)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BatchError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(BatchError::CutOff)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn i8(&mut self) -> Result<i8, BatchError> {
        self.array().map(i8::from_be_bytes)
    }

    fn i16(&mut self) -> Result<i16, BatchError> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, BatchError> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, BatchError> {
        self.array().map(i64::from_be_bytes)
    }

    fn varint(&mut self) -> Result<i64, BatchError> {
        take_varint(&mut self.0).ok_or(BatchError::Impossible)
    }

    fn optional_bytes(&mut self) -> Result<Option<&'a [u8]>, BatchError> {
        take_sized(&mut self.0).ok_or(BatchError::Impossible)
    }

    /// Takes the rest of `record` as its headers.
    fn headers(&mut self, record: &Bytes) -> Result<Headers, BatchError> {
        let count = usize::try_from(self.varint()?).map_err(|_| BatchError::Impossible)?;
        Headers::from_encoded(count, record.slice_ref(self.0)).ok_or(BatchError::Impossible)
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use kafka_protocol::records::{
        Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
    };
    use proptest::prelude::*;

    use super::*;

    fn outgoing() -> impl Strategy<Value = OutgoingRecord> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
        let headers = proptest::collection::vec((".{0,12}", bytes()), 0..5);
        (proptest::option::of(bytes()), proptest::option::of(bytes()), headers, 0..4_000_000_000_000_i64)
            .prop_map(|(key, value, headers, millis)| OutgoingRecord {
                key: key.map(Bytes::from),
                value: value.map(Bytes::from),
                headers: headers.into_iter().collect(),
                timestamp: DateTime::from_timestamp_millis(millis).expect("a moment"),
            })
    }

    fn as_sent(found: FetchedRecord) -> OutgoingRecord {
        let FetchedRecord { key, value, headers, timestamp, .. } = found;
        OutgoingRecord { key, value, headers, timestamp }
    }

    proptest! {
        #[test]
        fn encoded_batches_are_decoded_with_every_compression(sent in proptest::collection::vec(outgoing(), 1..20)) {
            for (_, compression) in Compression::ALL {
                let batch = encode(&sent, compression).expect("encoded");
                let twice = Bytes::from([&batch[..], &batch, &batch[..batch.len() - 1]].concat());
                let Decoded { records: found, next_offset: next, .. } = decode(&twice, 0).expect("decoded");
                let end = signed(sent.len());
                prop_assert_eq!(next, end);
                let offsets: Vec<i64> = found.iter().map(|record| record.offset).collect();
                let expected: Vec<i64> = (0..end).chain(0..end).collect();
                prop_assert_eq!(offsets, expected, "both complete batches, and nothing of the third");
                let found: Vec<OutgoingRecord> = found.into_iter().take(sent.len()).map(as_sent).collect();
                prop_assert_eq!(&found, &sent);
            }
        }

        /// Compares with the crate `kafka-protocol`, which keeps one header of each name.
        #[test]
        fn batches_are_exchanged_with_another_implementation(sent in proptest::collection::vec(outgoing(), 1..20)) {
            let batch = encode(&sent, Compression::None).expect("encoded");
            let theirs = RecordBatchDecoder::decode(&mut Bytes::from(batch)).expect("decoded").records;
            prop_assert_eq!(theirs.len(), sent.len());
            for (index, (theirs, ours)) in (0_i64..).zip(theirs.iter().zip(&sent)) {
                prop_assert_eq!(theirs.offset, index);
                prop_assert_eq!(theirs.timestamp, ours.timestamp.timestamp_millis());
                prop_assert_eq!(theirs.key.as_deref(), ours.key.as_deref());
                prop_assert_eq!(theirs.value.as_deref(), ours.value.as_deref());
            }
            let mut again = bytes::BytesMut::new();
            let options = RecordEncodeOptions { version: 2, compression: kafka_protocol::records::Compression::None };
            RecordBatchEncoder::encode(&mut again, &theirs, &options).expect("encoded");
            let found = decode(&again.freeze(), 0).expect("decoded").records;
            for (found, ours) in found.iter().zip(&sent) {
                prop_assert_eq!(&found.value, &ours.value);
                prop_assert_eq!(found.timestamp, ours.timestamp);
            }
        }

        #[test]
        fn damage_is_reported_and_never_panics(
            sent in proptest::collection::vec(outgoing(), 1..5), at in any::<prop::sample::Index>(), to in any::<u8>(),
        ) {
            for (_, compression) in Compression::ALL {
                let mut batch = encode(&sent, compression).expect("encoded");
                let position = CHECKSUM_START + at.index(batch.len() - CHECKSUM_START);
                let was = std::mem::replace(&mut batch[position], to);
                prop_assert!(was == to || matches!(decode(&batch.clone().into(), 0), Err(BatchError::Damaged)));
                // A batch with a correct checksum may still contain nonsense.
                let checksum = crc32c::crc32c(&batch[CHECKSUM_END..]);
                batch[CHECKSUM_START..CHECKSUM_END].copy_from_slice(&checksum.to_be_bytes());
                let _ = decode(&batch.into(), 0);
            }
        }
    }

    /// Covers records that end anywhere in a piece, a record longer than three pieces, and empty records.
    #[test]
    fn a_batch_of_many_pieces_is_decoded_completely_or_not_at_all() {
        let record = |number: usize| OutgoingRecord {
            key: Some(number.to_string().into()),
            value: Some(vec![b'v'; if number == 1_500 { 200_000 } else { number * 37 % 401 }].into()),
            headers: [("number", number.to_string())].into(),
            timestamp: DateTime::UNIX_EPOCH,
        };
        let sent: Vec<OutgoingRecord> = (0..3_000).map(record).collect();
        for (_, compression) in Compression::ALL {
            let batch = encode(&sent, compression).expect("encoded");
            let found = decode(&batch.clone().into(), 0).expect("decoded").records;
            assert!(found.into_iter().map(as_sent).eq(sent.iter().cloned()), "{compression:?}");
            for length in [batch.len() / 2, batch.len() - 1] {
                let mut cut = batch[..length].to_vec();
                fill(
                    &mut cut,
                    LENGTH_END - 4,
                    i32::try_from(length - LENGTH_END).expect("short").to_be_bytes(),
                );
                let checksum = crc32c::crc32c(&cut[CHECKSUM_END..]);
                fill(&mut cut, CHECKSUM_START, checksum.to_be_bytes());
                // The last byte of gzip and zstd comes after the records.
                let is_whole = decode(&cut.into(), 0).is_ok_and(|found| found.records.len() == sent.len());
                assert!(!is_whole || length == batch.len() - 1, "{compression:?}");
            }
        }
    }

    /// Seen to fail with pieces of a fixed size: the record kept a whole piece in memory.
    #[test]
    fn a_batch_of_one_record_keeps_little_memory() {
        let sent = OutgoingRecord {
            key: None,
            value: Some("x".repeat(400).into()),
            headers: Headers::default(),
            timestamp: Utc::now(),
        };
        for (_, compression) in Compression::ALL {
            let batch = encode(std::slice::from_ref(&sent), compression).expect("encoded");
            let found = decode(&batch.into(), 0).expect("decoded").records;
            let value = found.into_iter().next().expect("one").value.expect("a value");
            let held = value.try_into_mut().expect("not shared").capacity();
            assert!(held < 1_000, "{compression:?}: {held}");
        }
    }

    /// Seen to fail with a bound for each batch alone, because one fetch returns hundreds of batches.
    #[test]
    fn the_decoded_size_of_one_fetch_is_bounded_for_any_compression_ratio() {
        let value = Some(vec![0; DECODED_BYTES_MAX / 2 - 1_000].into());
        let large = OutgoingRecord { key: None, value, headers: Headers::default(), timestamp: Utc::now() };
        let batch = encode(&[large], Compression::Zstd).expect("encoded");
        assert!(batch.len() < 10_000, "{}", batch.len());
        let batches: Vec<u8> = (0..5_i64)
            .flat_map(|offset| {
                let mut batch = batch.clone();
                batch[..8].copy_from_slice(&offset.to_be_bytes());
                batch
            })
            .collect();
        let Decoded { records: found, next_offset: next, .. } = decode(&batches.into(), 0).expect("decoded");
        assert_eq!((found.len(), next), (3, 3), "the next fetch returns the rest");
    }

    #[test]
    fn records_before_the_requested_offset_are_skipped() {
        let sent =
            OutgoingRecord { key: None, value: None, headers: Headers::default(), timestamp: Utc::now() };
        let mut batch = encode(&[sent.clone(), sent.clone(), sent], Compression::None).expect("encoded");
        batch[..8].copy_from_slice(&7_i64.to_be_bytes());
        let batch = Bytes::from(batch);
        let offsets = |from| {
            decode(&batch, from)
                .expect("decoded")
                .records
                .iter()
                .map(|record| record.offset)
                .collect::<Vec<_>>()
        };
        assert_eq!(offsets(0), [7, 8, 9]);
        assert_eq!(offsets(8), [8, 9]);
        assert!(offsets(10).is_empty());
    }

    /// Seen to fail when a header without a value counted as damage, which every retry met again.
    #[test]
    fn headers_of_other_producers_and_transaction_markers_are_read() {
        let record = Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset: 0,
            sequence: -1,
            timestamp: 1,
            key: None,
            value: None,
            headers: [("nothing".into(), None), ("something".into(), Some(Bytes::from_static(b"x")))].into(),
        };
        let mut batch = bytes::BytesMut::new();
        let options =
            RecordEncodeOptions { version: 2, compression: kafka_protocol::records::Compression::None };
        RecordBatchEncoder::encode(&mut batch, [&record], &options).expect("encoded");
        let found = decode(&batch.freeze(), 0).expect("decoded").records;
        let headers: Vec<(std::borrow::Cow<'_, str>, &[u8])> = found[0].headers.iter().collect();
        assert_eq!(headers, [("nothing".into(), &b""[..]), ("something".into(), b"x")]);
        let control = Record { control: true, ..record };
        let mut batch = bytes::BytesMut::new();
        RecordBatchEncoder::encode(&mut batch, [&control], &options).expect("encoded");
        let Decoded { records: found, next_offset: next, .. } = decode(&batch.freeze(), 0).expect("decoded");
        assert!(found.is_empty(), "a transaction marker is no record");
        assert_eq!(next, 1, "a transaction marker has an offset");
    }
}
