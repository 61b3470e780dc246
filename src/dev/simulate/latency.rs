//! Latencies of any number of requests in fixed memory: counts in buckets that are at most 1.6 % wide, and the exact
//! maximum. Written by all connections at once without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// 2^6 buckets for each doubling.
const SUB_BITS: u32 = 6;
const SUB_BUCKETS: u64 = 1 << SUB_BITS;
/// Up to 2^36 µs, which is 19 hours.
const DOUBLINGS: u64 = 31;

/// Counts per bucket, in microseconds.
#[derive(Debug)]
pub(super) struct Latencies {
    buckets: Box<[AtomicU64]>,
    max_micros: AtomicU64,
}

impl Latencies {
    pub(super) fn new() -> Self {
        let buckets = (0..SUB_BUCKETS * DOUBLINGS).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, max_micros: AtomicU64::new(0) }
    }

    /// Counts one request.
    pub(super) fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let last = self.buckets.len() - 1;
        let index = usize::try_from(bucket(micros)).map_or(last, |index| index.min(last));
        if let Some(count) = self.buckets.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.max_micros.fetch_max(micros, Ordering::Relaxed);
    }

    /// The longest, exactly.
    pub(super) fn max(&self) -> Duration {
        Duration::from_micros(self.max_micros.load(Ordering::Relaxed))
    }

    /// The latency that this share of requests (0.99 for p99) did not exceed; zero where there were none.
    pub(super) fn percentile(&self, share: f64) -> Duration {
        let counts: Vec<u64> = self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let mut seen = 0_u64;
        for (micros_below, count) in (0_u64..).map(upper_bound).zip(counts) {
            seen += count;
            if count > 0 && seen as f64 >= all as f64 * share {
                return Duration::from_micros(micros_below).min(self.max());
            }
        }
        self.max()
    }
}

/// Exact below 64 µs; from there on, the position of the highest bit and the six bits behind it.
fn bucket(micros: u64) -> u64 {
    if micros < SUB_BUCKETS {
        return micros;
    }
    let doubling = u64::from(micros.ilog2() - SUB_BITS);
    (doubling + 1) * SUB_BUCKETS + ((micros >> doubling) - SUB_BUCKETS)
}

/// The largest value in a bucket.
fn upper_bound(index: u64) -> u64 {
    if index < SUB_BUCKETS {
        return index;
    }
    let doubling = index / SUB_BUCKETS - 1;
    ((index % SUB_BUCKETS + SUB_BUCKETS + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_narrow_and_in_order() {
        for micros in (0..2_000).chain((1..30).map(|bits| (1 << bits) + 3)) {
            let bound = upper_bound(bucket(micros));
            assert!(bound >= micros, "{micros} is above {bound}");
            assert!(bound - micros <= micros / 32, "{micros} in a bucket up to {bound}");
            assert!(bucket(micros + 1) >= bucket(micros));
        }
    }

    #[test]
    fn percentiles_are_those_of_the_requests() {
        let latencies = Latencies::new();
        assert_eq!(latencies.percentile(0.5), Duration::ZERO);
        (1..=1000).for_each(|ms| latencies.record(Duration::from_millis(ms)));
        for (share, ms) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0)] {
            let found = latencies.percentile(share).as_secs_f64() * 1000.0;
            assert!((found / ms - 1.0).abs() < 0.02, "{found} for {ms}");
        }
        assert_eq!(latencies.percentile(1.0), Duration::from_secs(1));
        assert_eq!(latencies.max(), Duration::from_secs(1));
    }
}
