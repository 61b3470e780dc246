//! The lane and the partition of a key. Neither may change while a topic holds records.

/// The number of outbox lanes, and so of relays that can share the work. It never changes, because rows store their lane.
pub const LANES: i16 = 32;

/// Returns the outbox lane of a key.
pub fn lane_of(key: &[u8]) -> i16 {
    i16::try_from(positive(murmur2(key)) % u32::from(LANES.unsigned_abs())).unwrap_or(0)
}

/// Returns the partition that Kafka's Java producer chooses for a key: `toPositive(murmur2(key)) % partitions`.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    i32::try_from(positive(murmur2(key)) % partitions.max(1).unsigned_abs()).unwrap_or(0)
}

fn positive(hash: u32) -> u32 {
    hash & 0x7fff_ffff
}

/// Computes MurmurHash2 with 32 bits and the seed of Kafka's `org.apache.kafka.common.utils.Utils.murmur2`.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let mut words = data.chunks_exact(4);
    for word in words.by_ref() {
        let mut k = word.iter().rev().fold(0_u32, |value, byte| (value << 8) | u32::from(*byte));
        k = k.wrapping_mul(MULTIPLIER);
        k ^= k >> 24;
        k = k.wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0_u32, |value, byte| (value << 8) | u32::from(*byte));
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors are from Apache Kafka's `UtilsTest.testMurmur2`.
    #[test]
    fn the_hash_equals_kafkas() {
        let vectors: [(&str, i32); 7] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ];
        for (text, expected) in vectors {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), expected, "{text:?}");
        }
    }

    #[test]
    fn lanes_and_partitions_are_in_range_and_stable() {
        for n in 0..1000 {
            let key = format!("acct-{n}");
            assert!((0..LANES).contains(&lane_of(key.as_bytes())));
            assert!((0..12).contains(&partition_of(key.as_bytes(), 12)));
        }
        assert_eq!(
            (lane_of(b"acct-42"), partition_of(b"acct-42", 12)),
            (lane_of(b"acct-42"), partition_of(b"acct-42", 12))
        );
    }
}
