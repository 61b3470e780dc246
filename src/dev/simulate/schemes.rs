//! What the suspects do: each scheme is a short script that one of the shipped rules is there to find, played out on
//! accounts of its own. All schemes together are one round, after which the next round begins with other suspects.
//!
//! Step `k` of a run is a pure function of the seed and `k`. The steps of a round are interleaved, so that a suspect's
//! steps reach the ledger in order although many requests are under way at once. Two shipped rules need more than a
//! script: `dormant_account_wakes` needs 90 days of silence, and `night_debit` the night.

use rand::{RngExt, rngs::SmallRng};

use super::{draft::Draft, random::generator};
use crate::domain::Direction;

/// What a suspect is up to, and in how many steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// Money spread over many receivers: `many_counterparties`.
    Mules,
    /// More transactions than a person makes: `velocity_count`.
    Burst,
    /// Amounts just below what has to be reported: `structuring`.
    Structuring,
    /// One round amount after the other: `round_amounts_in_series`.
    RoundAmounts,
    /// Shops as usual, then a stranger far away empties the account: `large_for_the_account`, `unusual_country`,
    /// `unusual_channel`.
    Takeover,
    /// What comes in goes out at once: `rapid_in_and_out`.
    PassThrough,
    /// A new account that begins big: `new_account`, `large_amount`, `very_large_amount`, `velocity_sum`.
    Drain,
}

const SCHEMES: [(Scheme, u64); 7] = [
    (Scheme::Mules, 11),
    (Scheme::Burst, 24),
    (Scheme::Structuring, 4),
    (Scheme::RoundAmounts, 6),
    (Scheme::Takeover, 8),
    (Scheme::PassThrough, 4),
    (Scheme::Drain, 4),
];
/// Each scheme's every step once.
const ROUND_STEPS: u64 = 61;
/// A suspect that comes round again strikes from another one.
const COUNTRIES: [&str; 6] = ["BR", "KY", "NG", "RU", "TH", "VE"];

/// How many suspects a run has at the least.
pub(super) const SUSPECTS_MIN: u32 = 7;

/// One step of a scheme.
pub(super) struct Step {
    /// Which of the suspects takes it.
    pub(super) suspect: usize,
    pub(super) draft: Draft,
}

/// Step `k` of a run with that many suspects, of which every scheme has the same share.
pub(super) fn step(k: u64, suspects: u32, seed: u64) -> Step {
    let round = k / ROUND_STEPS;
    let (index, scheme, number) = whose_turn(k % ROUND_STEPS);
    let for_each = u64::from((suspects / SUSPECTS_MIN).max(1));
    let cast = usize::try_from(round % for_each).unwrap_or(0);
    let mut of_round = generator(seed, round);
    let mut of_step = generator(!seed, k);
    Step {
        suspect: cast * SCHEMES.len() + index,
        draft: scheme.draft(number, round, &mut of_round, &mut of_step),
    }
}

/// Everybody's first step, then everybody's second, until all scripts are at their end. Answers the scheme with its
/// index, and the number of its step.
fn whose_turn(turn: u64) -> (usize, Scheme, u64) {
    let steps_max = SCHEMES.iter().map(|(_, steps)| *steps).max().unwrap_or(0);
    let mut turns = (0..steps_max).flat_map(|number| {
        let those_left = SCHEMES.into_iter().enumerate().filter(move |(_, (_, steps))| number < *steps);
        those_left.map(move |(index, (scheme, _))| (index, scheme, number))
    });
    let turn = usize::try_from(turn).unwrap_or(0);
    turns.nth(turn).unwrap_or((0, Scheme::Mules, 0))
}

impl Scheme {
    /// Cents. `of_round` is the same for all steps of a script, `of_step` is not.
    fn draft(self, step: u64, round: u64, of_round: &mut SmallRng, of_step: &mut SmallRng) -> Draft {
        match self {
            Self::Mules => debit(of_step.random_range(2_000..=9_000), format!("mule-{round}-{step}")),
            Self::Burst => debit(of_step.random_range(100..=900), "game-11".into()),
            Self::Structuring => debit(of_step.random_range(940_000..=999_900), "exchange-7".into()),
            Self::RoundAmounts => debit(of_step.random_range(1..=5) * 100_000, "atm-9".into()),
            Self::Takeover if step < 7 => debit(of_step.random_range(1_000..=4_000), "shop-5".into()),
            Self::Takeover => Draft {
                country: abroad(round),
                channel: "phone",
                ..debit(of_step.random_range(200_000..=900_000), "hotel-2".into())
            },
            Self::PassThrough => {
                let came_in = of_round.random_range(400_000..=600_000) * 3;
                match step {
                    0 => Draft { direction: Direction::Credit, ..debit(came_in, "wallet-3".into()) },
                    _ => debit(came_in / 3 - of_step.random_range(0..=9_000), format!("wallet-{step}")),
                }
            }
            Self::Drain => debit(of_step.random_range(5_500_000..=9_500_000), "broker-1".into()),
        }
    }
}

fn debit(cents: i64, counterparty: String) -> Draft {
    Draft {
        direction: Direction::Debit,
        cents,
        counterparty: Some(counterparty),
        country: "DE",
        channel: "web",
    }
}

fn abroad(round: u64) -> &'static str {
    let countries = u64::try_from(COUNTRIES.len()).unwrap_or(1);
    let index = usize::try_from(round % countries).unwrap_or(0);
    COUNTRIES.get(index).copied().unwrap_or("BR")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_round_takes_each_step_of_each_scheme_once() {
        assert_eq!(SCHEMES.iter().map(|(_, steps)| steps).sum::<u64>(), ROUND_STEPS);
        let mut taken = BTreeMap::new();
        (0..ROUND_STEPS).for_each(|k| *taken.entry(step(k, 7, 1).suspect).or_insert(0) += 1);
        let expected = SCHEMES.iter().enumerate().map(|(index, (_, steps))| (index, *steps));
        assert_eq!(taken, expected.collect());
        assert_eq!(step(ROUND_STEPS, 7, 1).suspect, step(0, 7, 1).suspect);
        assert_ne!(step(ROUND_STEPS, 14, 1).suspect, step(0, 14, 1).suspect);
        assert!((0..1000).all(|k| step(k, 20, 1).suspect < 20));
    }
}
