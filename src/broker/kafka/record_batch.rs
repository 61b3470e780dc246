//! Record batches in Kafka's message format 2 (KIP-98, <https://kafka.apache.org/documentation/#recordbatch>): what a
//! produce request carries for a partition, and what a fetch brings.
//!
//! Guarantees: headers are kept as they come. What is decoded at once is bounded, whatever a batch was compressed from;
//! only a single batch beyond that bound is not read, and says so.
//! Deliberately absent: formats 0 and 1, which Kafka 4 has given up, and filtering of aborted transactions.

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
/// What a field holds that only idempotent or transactional producers and brokers fill in.
const NONE: i64 = -1;
/// From the base offset to the count of records.
const FRONT_BYTES: usize = 61;
/// The length counts what comes after it.
const LENGTH_END: usize = 12;
/// The checksum covers what comes after it.
const CHECKSUM_START: usize = 17;
const CHECKSUM_END: usize = 21;
/// Decoded at once: after this no further batch is begun.
const DECODED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// In one batch: a broker takes a hundred thousand small ones in its 1 MiB.
const RECORDS_MAX: usize = 500_000;
/// A number of 64 bits, seven in each.
const VARINT_BYTES_MAX: usize = 10;
/// For so many of a batch room is made at once, at most: what it says it has need not be there.
const RECORDS_RESERVED_MAX: usize = 10_000;

const CODEC_BITS: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const CONTROL: i16 = 1 << 5;

/// Why bytes are no records.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it ends in the middle of a record")]
    CutOff,
    #[error("a number or a length in it is impossible")]
    Impossible,
    #[error("its checksum is wrong")]
    Damaged,
    #[error("it is in message format {0}; only format 2 (Kafka 0.11 and later) is read")]
    Format(i8),
    #[error("it says that it has {0} records; at most {RECORDS_MAX} are read")]
    TooMany(usize),
    #[error("it is compressed in a way that is not known: {0}")]
    UnknownCompression(i16),
    #[error(transparent)]
    Decompress(#[from] DecompressError),
}

/// All records as one batch. Fails only where the batch would be larger than the format can say, or memory.
pub(super) fn encode(records: &[OutgoingRecord], codec: Compression) -> std::io::Result<Vec<u8>> {
    let times = || records.iter().map(|record| record.timestamp.timestamp_millis());
    let first_time = times().next().unwrap_or(0);
    let mut body = Vec::with_capacity(records.iter().map(record_bytes_max).sum());
    for (record, place) in records.iter().zip(0_i64..) {
        put_record(&mut body, record, record.timestamp.timestamp_millis() - first_time, place);
    }
    let count = i32::try_from(records.len()).map_err(std::io::Error::other)?;
    let mut batch = Vec::with_capacity(FRONT_BYTES + body.len());
    batch.extend(0_i64.to_be_bytes()); // base offset, which the broker replaces
    batch.extend([0; 4]); // length, below
    batch.extend((-1_i32).to_be_bytes()); // partition leader epoch
    batch.extend(FORMAT.to_be_bytes());
    batch.extend([0; 4]); // checksum, below
    batch.extend(codec.number().to_be_bytes());
    batch.extend((count - 1).to_be_bytes()); // last offset delta
    batch.extend(first_time.to_be_bytes());
    batch.extend(times().max().unwrap_or(first_time).to_be_bytes());
    batch.extend(NONE.to_be_bytes()); // producer id
    batch.extend((-1_i16).to_be_bytes()); // producer epoch
    batch.extend((-1_i32).to_be_bytes()); // base sequence
    batch.extend(count.to_be_bytes());
    let mut batch = codec.compress(&body, batch)?;
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

/// Enough room for a record: each number takes at most ten bytes.
fn record_bytes_max(record: &OutgoingRecord) -> usize {
    let optional = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    40 + optional(&record.key) + optional(&record.value) + record.headers.encoded().len()
}

fn put_record(out: &mut Vec<u8>, record: &OutgoingRecord, time_delta: i64, place: i64) {
    let (key, value) = (record.key.as_deref(), record.value.as_deref());
    let headers = &record.headers;
    let length = 1
        + varint_size(time_delta)
        + varint_size(place)
        + sized_size(key)
        + sized_size(value)
        + varint_size(signed(headers.len()))
        + headers.encoded().len();
    put_varint(out, signed(length));
    out.push(0); // attributes: there are none
    put_varint(out, time_delta);
    put_varint(out, place);
    put_sized(out, key);
    put_sized(out, value);
    put_varint(out, signed(headers.len()));
    out.extend_from_slice(headers.encoded());
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// The records of all batches that are there whole, from `offset` on, and where the next batch begins. A fetch may end
/// in the middle of a batch, and begin with one that began before what was asked for.
pub(super) fn decode(bytes: &Bytes, offset: i64) -> Result<(Vec<FetchedRecord>, i64), Unreadable> {
    let mut rest = Reader(bytes);
    let (mut records, mut next, mut decoded_bytes) = (Vec::new(), offset, 0);
    while rest.0.len() >= LENGTH_END && decoded_bytes < DECODED_BYTES_MAX {
        let base_offset = rest.i64()?;
        let length = usize::try_from(rest.i32()?).map_err(|_| Unreadable::Impossible)?;
        if length > rest.0.len() {
            break;
        }
        let batch = bytes.slice_ref(rest.take(length)?);
        let decoded = decode_batch(&batch, base_offset, offset, &mut records)?;
        next = next.max(decoded.end);
        decoded_bytes += decoded.bytes;
    }
    Ok((records, next))
}

/// What became of a batch: the offset behind it, and how many bytes it was when decompressed.
struct Decoded {
    end: i64,
    bytes: usize,
}

fn decode_batch(
    bytes: &Bytes,
    base_offset: i64,
    offset: i64,
    records: &mut Vec<FetchedRecord>,
) -> Result<Decoded, Unreadable> {
    let mut batch = Reader(bytes);
    batch.i32()?; // partition leader epoch
    let format = batch.i8()?;
    if format != FORMAT {
        return Err(Unreadable::Format(format));
    }
    let checksum = u32::from_be_bytes(batch.array()?);
    if crc32c::crc32c(batch.0) != checksum {
        return Err(Unreadable::Damaged);
    }
    let attributes = batch.i16()?;
    let end = base_offset.wrapping_add(i64::from(batch.i32()?)).wrapping_add(1);
    let first_time = batch.i64()?;
    let last_time = batch.i64()?;
    batch.take(8 + 2 + 4)?; // producer id and epoch, base sequence
    let count = usize::try_from(batch.i32()?).map_err(|_| Unreadable::Impossible)?;
    if attributes & CONTROL != 0 {
        return Ok(Decoded { end, bytes: 0 });
    }
    if count > RECORDS_MAX {
        return Err(Unreadable::TooMany(count));
    }
    let number = attributes & CODEC_BITS;
    let codec = Compression::from_number(number).ok_or(Unreadable::UnknownCompression(number))?;
    let body = bytes.slice_ref(batch.0);
    let mut pieces = codec.decompress(&body)?;
    // Records are slices of the piece that they are on.
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
        };
        if found.offset >= offset {
            records.push(found);
        }
    }
    Ok(Decoded { end, bytes: pieces.bytes() + count * size_of::<FetchedRecord>() })
}

/// Takes the next record, without its length, from the front of the piece, or of the one after it.
fn next_record(piece: &mut Bytes, pieces: &mut Pieces<'_>) -> Result<Bytes, Unreadable> {
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
            return Err(Unreadable::CutOff);
        }
        *piece = next;
    }
}

/// Where the first record is, as its length tells; None if not even that is there whole.
fn record_length(bytes: &[u8]) -> Result<Option<Range<usize>>, Unreadable> {
    let mut rest = bytes;
    match take_varint(&mut rest) {
        Some(length) => {
            let length = usize::try_from(length).map_err(|_| Unreadable::Impossible)?;
            let start = bytes.len() - rest.len();
            Ok(Some(start..start.checked_add(length).ok_or(Unreadable::Impossible)?))
        }
        None if bytes.len() < VARINT_BYTES_MAX => Ok(None),
        None => Err(Unreadable::Impossible),
    }
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Unreadable::CutOff)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Unreadable::CutOff)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn i8(&mut self) -> Result<i8, Unreadable> {
        self.array().map(i8::from_be_bytes)
    }

    fn i16(&mut self) -> Result<i16, Unreadable> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, Unreadable> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, Unreadable> {
        self.array().map(i64::from_be_bytes)
    }

    fn varint(&mut self) -> Result<i64, Unreadable> {
        take_varint(&mut self.0).ok_or(Unreadable::Impossible)
    }

    fn optional_bytes(&mut self) -> Result<Option<&'a [u8]>, Unreadable> {
        take_sized(&mut self.0).ok_or(Unreadable::Impossible)
    }

    /// All that is left of `record`.
    fn headers(&mut self, record: &Bytes) -> Result<Headers, Unreadable> {
        let count = usize::try_from(self.varint()?).map_err(|_| Unreadable::Impossible)?;
        Headers::from_encoded(count, record.slice_ref(self.0)).ok_or(Unreadable::Impossible)
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
        fn what_is_written_is_read_whatever_the_codec(sent in proptest::collection::vec(outgoing(), 1..20)) {
            for (_, codec) in Compression::ALL {
                let batch = encode(&sent, codec).expect("encoded");
                let twice = Bytes::from([&batch[..], &batch, &batch[..batch.len() - 1]].concat());
                let (found, next) = decode(&twice, 0).expect("decoded");
                let end = signed(sent.len());
                prop_assert_eq!(next, end);
                let offsets: Vec<i64> = found.iter().map(|record| record.offset).collect();
                let expected: Vec<i64> = (0..end).chain(0..end).collect();
                prop_assert_eq!(offsets, expected, "both whole batches, and nothing of the third");
                let found: Vec<OutgoingRecord> = found.into_iter().take(sent.len()).map(as_sent).collect();
                prop_assert_eq!(&found, &sent);
            }
        }

        /// Against another implementation, which keeps one header of a name.
        #[test]
        fn others_read_what_we_write_and_we_read_what_they_write(sent in proptest::collection::vec(outgoing(), 1..20)) {
            let batch = encode(&sent, Compression::None).expect("encoded");
            let theirs = RecordBatchDecoder::decode(&mut Bytes::from(batch)).expect("decoded").records;
            prop_assert_eq!(theirs.len(), sent.len());
            for (place, (theirs, ours)) in (0_i64..).zip(theirs.iter().zip(&sent)) {
                prop_assert_eq!(theirs.offset, place);
                prop_assert_eq!(theirs.timestamp, ours.timestamp.timestamp_millis());
                prop_assert_eq!(theirs.key.as_deref(), ours.key.as_deref());
                prop_assert_eq!(theirs.value.as_deref(), ours.value.as_deref());
            }
            let mut again = bytes::BytesMut::new();
            let options = RecordEncodeOptions { version: 2, compression: kafka_protocol::records::Compression::None };
            RecordBatchEncoder::encode(&mut again, &theirs, &options).expect("encoded");
            let (found, _) = decode(&again.freeze(), 0).expect("decoded");
            for (found, ours) in found.iter().zip(&sent) {
                prop_assert_eq!(&found.value, &ours.value);
                prop_assert_eq!(found.timestamp, ours.timestamp);
            }
        }

        #[test]
        fn damage_is_told_and_never_panics(
            sent in proptest::collection::vec(outgoing(), 1..5), at in any::<prop::sample::Index>(), to in any::<u8>(),
        ) {
            for (_, codec) in Compression::ALL {
                let mut batch = encode(&sent, codec).expect("encoded");
                let place = CHECKSUM_START + at.index(batch.len() - CHECKSUM_START);
                let was = std::mem::replace(&mut batch[place], to);
                prop_assert!(was == to || matches!(decode(&batch.clone().into(), 0), Err(Unreadable::Damaged)));
                // Behind the checksum nothing can be trusted either: what has a right one may still be nonsense.
                let checksum = crc32c::crc32c(&batch[CHECKSUM_END..]);
                batch[CHECKSUM_START..CHECKSUM_END].copy_from_slice(&checksum.to_be_bytes());
                let _ = decode(&batch.into(), 0);
            }
        }
    }

    /// Records that end anywhere on a piece, one that is longer than three of them, and none.
    #[test]
    fn a_batch_of_many_pieces_is_read_whole_or_not_at_all() {
        let record = |number: usize| OutgoingRecord {
            key: Some(number.to_string().into()),
            value: Some(vec![b'v'; if number == 1_500 { 200_000 } else { number * 37 % 401 }].into()),
            headers: [("number", number.to_string())].into(),
            timestamp: DateTime::UNIX_EPOCH,
        };
        let sent: Vec<OutgoingRecord> = (0..3_000).map(record).collect();
        for (_, codec) in Compression::ALL {
            let batch = encode(&sent, codec).expect("encoded");
            let (found, _) = decode(&batch.clone().into(), 0).expect("decoded");
            assert!(found.into_iter().map(as_sent).eq(sent.iter().cloned()), "{codec:?}");
            for length in [batch.len() / 2, batch.len() - 1] {
                let mut cut = batch[..length].to_vec();
                fill(
                    &mut cut,
                    LENGTH_END - 4,
                    i32::try_from(length - LENGTH_END).expect("short").to_be_bytes(),
                );
                let checksum = crc32c::crc32c(&cut[CHECKSUM_END..]);
                fill(&mut cut, CHECKSUM_START, checksum.to_be_bytes());
                // Of gzip and zstd the last byte is behind the records.
                let is_whole = decode(&cut.into(), 0).is_ok_and(|(found, _)| found.len() == sent.len());
                assert!(!is_whole || length == batch.len() - 1, "{codec:?}");
            }
        }
    }

    /// Seen to fail with pieces of one size, of which each record here would hold one.
    #[test]
    fn a_batch_of_one_record_does_not_hold_the_room_of_many() {
        let sent = OutgoingRecord {
            key: None,
            value: Some("x".repeat(400).into()),
            headers: Headers::default(),
            timestamp: Utc::now(),
        };
        for (_, codec) in Compression::ALL {
            let batch = encode(std::slice::from_ref(&sent), codec).expect("encoded");
            let (found, _) = decode(&batch.into(), 0).expect("decoded");
            let value = found.into_iter().next().expect("one").value.expect("a value");
            let held = value.try_into_mut().expect("nobody else holds it").capacity();
            assert!(held < 1_000, "{codec:?}: {held}");
        }
    }

    /// Planted bug that this catches: a bound for each batch only, of which a fetch may bring hundreds.
    #[test]
    fn what_is_decoded_at_once_is_bounded_whatever_it_was_compressed_from() {
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
        let (found, next) = decode(&batches.into(), 0).expect("decoded");
        assert_eq!((found.len(), next), (3, 3), "the rest comes with the next fetch");
    }

    #[test]
    fn what_was_not_asked_for_is_left_out() {
        let sent =
            OutgoingRecord { key: None, value: None, headers: Headers::default(), timestamp: Utc::now() };
        let mut batch = encode(&[sent.clone(), sent.clone(), sent], Compression::None).expect("encoded");
        batch[..8].copy_from_slice(&7_i64.to_be_bytes());
        let batch = Bytes::from(batch);
        let offsets = |from| {
            decode(&batch, from).expect("decoded").0.iter().map(|record| record.offset).collect::<Vec<_>>()
        };
        assert_eq!(offsets(0), [7, 8, 9]);
        assert_eq!(offsets(8), [8, 9]);
        assert!(offsets(10).is_empty());
    }

    /// Planted bug that this catches: a header without a value taken for damage, which no retry would ever get past.
    #[test]
    fn headers_that_other_producers_may_write_are_read() {
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
        let (found, _) = decode(&batch.freeze(), 0).expect("decoded");
        let headers: Vec<(std::borrow::Cow<'_, str>, &[u8])> = found[0].headers.iter().collect();
        assert_eq!(headers, [("nothing".into(), &b""[..]), ("something".into(), b"x")]);
        let control = Record { control: true, ..record };
        let mut batch = bytes::BytesMut::new();
        RecordBatchEncoder::encode(&mut batch, [&control], &options).expect("encoded");
        let (found, next) = decode(&batch.freeze(), 0).expect("decoded");
        assert!(found.is_empty(), "the mark at the end of a transaction is no record");
        assert_eq!(next, 1, "but it has an offset");
    }
}
