//! Numbers of variable length, as in Kafka's message format 2: zigzag, then seven bits a byte, the low ones first
//! (<https://protobuf.dev/programming-guides/encoding/#signed-ints>); and bytes behind their length as such a number.

/// A length that stands for "nothing".
const ABSENT: i64 = -1;

/// Small numbers of either sign become small ones without.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

/// How many bytes [`put_varint`] appends.
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

/// Takes a number from the front; None if there is none, or it does not end within ten bytes.
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

/// How many bytes [`put_sized`] appends.
pub fn sized_size(bytes: Option<&[u8]>) -> usize {
    varint_size(length(bytes)) + bytes.map_or(0, <[u8]>::len)
}

/// Appends bytes behind their length, or that there are none.
pub fn put_sized(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, length(bytes));
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn length(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(ABSENT, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX))
}

/// Takes what [`put_sized`] appends from the front; None if that is not what is there.
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
    fn numbers_take_as_many_bytes_as_they_are_said_to() {
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
    fn bytes_come_back_and_take_as_many_as_they_are_said_to() {
        for bytes in [None, Some(&b""[..]), Some(b"x"), Some(&[7; 200])] {
            let mut out = Vec::new();
            put_sized(&mut out, bytes);
            assert_eq!(out.len(), sized_size(bytes));
            let mut rest = &out[..];
            assert_eq!((take_sized(&mut rest), rest), (Some(bytes), &[][..]));
        }
        // Cut off, and a length below that of nothing.
        assert_eq!(take_sized(&mut &[4, 0][..]), None);
        assert_eq!(take_sized(&mut &[3][..]), None);
    }
}
