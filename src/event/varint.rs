//! Numbers of variable length, and byte strings with their length before them, as Kafka's message format 2 encodes
//! them.
//!
//! A number is zigzag-encoded and written with seven bits in each byte, low bits first
//! (<https://protobuf.dev/programming-guides/encoding/#signed-ints>). The code is here and not in `broker::kafka`, because
//! [`super::Headers`] keeps its headers in this encoding.

/// The length of an absent byte string.
const ABSENT: i64 = -1;

/// Maps small numbers of either sign to small unsigned numbers.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

/// Returns the number of bytes that [`put_varint`] appends.
pub fn varint_size(number: i64) -> usize {
    let bits = 64 - (zigzag(number) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Appends a number.
pub fn put_varint(out: &mut Vec<u8>, number: i64) {
    let mut rest = zigzag(number);
    while rest >= 0x80 {
        out.push(low_byte(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low_byte(rest));
}

fn low_byte(number: u64) -> u8 {
    let [low, ..] = number.to_le_bytes();
    low
}

/// Takes a number from the front. Returns `None` if it is cut off or longer than ten bytes.
pub fn take_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
        }
    }
    None
}

/// Returns the number of bytes that [`put_sized`] appends.
pub fn sized_size(bytes: Option<&[u8]>) -> usize {
    varint_size(length(bytes)) + bytes.map_or(0, <[u8]>::len)
}

/// Appends the length and the bytes. For an absent byte string, appends the length -1.
pub fn put_sized(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, length(bytes));
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn length(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(ABSENT, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX))
}

/// Takes a byte string, as [`put_sized`] appends it, from the front. Returns `None` if it is cut off or invalid.
pub fn take_sized<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = take_varint(bytes)?;
    if length == ABSENT {
        return Some(None);
    }
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(Some(taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_encoding_and_take_the_computed_size() {
        for number in [0, -1, 1, 63, 64, -64, -65, 8191, 8192, i64::from(i32::MAX), i64::MIN, i64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            assert_eq!(out.len(), varint_size(number), "{number}");
            let mut rest = &out[..];
            assert_eq!((take_varint(&mut rest), rest), (Some(number), &[][..]));
        }
        assert_eq!(take_varint(&mut &[0x80; 10][..]), None);
        assert_eq!(take_varint(&mut &[0x80][..]), None);
    }

    #[test]
    fn byte_strings_survive_encoding_and_take_the_computed_size() {
        for bytes in [None, Some(&b""[..]), Some(b"x"), Some(&[7; 200])] {
            let mut out = Vec::new();
            put_sized(&mut out, bytes);
            assert_eq!(out.len(), sized_size(bytes));
            let mut rest = &out[..];
            assert_eq!((take_sized(&mut rest), rest), (Some(bytes), &[][..]));
        }
        // A byte string that is cut off, and the length -2.
        assert_eq!(take_sized(&mut &[4, 0][..]), None);
        assert_eq!(take_sized(&mut &[3][..]), None);
    }
}
