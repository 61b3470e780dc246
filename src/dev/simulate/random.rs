//! Random numbers that depend on the seed of the run and on a number alone, so that a run can be repeated.

use rand::{SeedableRng, rngs::SmallRng};

/// Spreads neighbouring numbers over all seeds: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns the same generator for the same seed and number.
pub(super) fn generator(seed: u64, number: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed ^ number.wrapping_mul(SPREAD))
}
