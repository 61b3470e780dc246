//! The suspicious schemes. Each scheme is a short sequence of transactions on an account of its own, which the shipped
//! rules must find. A round contains every scheme once; the next round uses other accounts.
//!
//! Guarantees: step `k` of a run depends only on the seed and on `k`; the steps of a round are interleaved, so that the
//! steps of one scheme reach the ledger in order although many requests are in flight.
//!
//! Deliberately absent: schemes for two shipped rules that depend on the time, `dormant_account_wakes` (90 days without
//! a transaction) and `night_debit`.

use rand::{RngExt, rngs::SmallRng};

use super::{draft::Draft, random::generator};
use crate::domain::Direction;

/// A scheme, with the rules that it trips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// Sends money to many receivers: `many_counterparties`.
    Mules,
    /// Makes more transactions than a person does: `velocity_count`.
    Burst,
    /// Pays amounts just below the reporting limit: `structuring`.
    Structuring,
    /// Pays several round amounts in a row: `round_amounts_in_series`.
    RoundAmounts,
    /// Buys as usual, and then pays a large amount from another country: `large_for_the_account`, `unusual_country`,
    /// `unusual_channel`.
    Takeover,
    /// Receives money and sends it on at once: `rapid_in_and_out`.
    PassThrough,
    /// Pays very large amounts from a new account: `new_account`, `large_amount`, `very_large_amount`, `velocity_sum`.
    Drain,
}

/// The schemes, each with its number of steps.
const SCHEMES: [(Scheme, u64); 7] = [
    (Scheme::Mules, 11),
    (Scheme::Burst, 24),
    (Scheme::Structuring, 4),
    (Scheme::RoundAmounts, 6),
    (Scheme::Takeover, 8),
    (Scheme::PassThrough, 4),
    (Scheme::Drain, 4),
];
/// The steps of a takeover before the account is taken over.
const USUAL_PURCHASES: u64 = 7;
/// The steps of all schemes together.
const ROUND_STEPS: u64 = 61;
/// The countries of the takeovers, a different one in each round.
const COUNTRIES: [&str; 6] = ["BR", "KY", "NG", "RU", "TH", "VE"];

/// The minimum number of suspicious accounts in a run.
pub(super) const SUSPECTS_MIN: u32 = 7;

/// One step of a scheme.
pub(super) struct Step {
    /// The index of the suspicious account.
    pub(super) suspect: usize,
    pub(super) planted: Planted,
    pub(super) draft: Draft,
}

/// The scheme that a transaction belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planted {
    pub(super) name: &'static str,
    /// False for the usual purchases before a takeover.
    pub(super) is_fraud: bool,
}

/// Returns step `k` of a run. The suspicious accounts are divided equally among the schemes.
pub(super) fn step(k: u64, suspects: u32, seed: u64) -> Step {
    let round = k / ROUND_STEPS;
    let (index, scheme, number) = step_of_round(k % ROUND_STEPS);
    let per_scheme = u64::from((suspects / SUSPECTS_MIN).max(1));
    let account_set = usize::try_from(round % per_scheme).unwrap_or(0);
    let mut of_round = generator(seed, round);
    let mut of_step = generator(!seed, k);
    Step {
        suspect: account_set * SCHEMES.len() + index,
        planted: Planted { name: scheme.name(), is_fraud: !scheme.is_usual_purchase(number) },
        draft: scheme.draft(number, round, &mut of_round, &mut of_step),
    }
}

/// Orders the steps of a round: the first step of every scheme, then the second of every scheme, and so on. Returns the
/// index of the scheme, the scheme, and the number of the step within the scheme.
fn step_of_round(position: u64) -> (usize, Scheme, u64) {
    let steps_max = SCHEMES.iter().map(|(_, steps)| *steps).max().unwrap_or(0);
    let mut steps = (0..steps_max).flat_map(|number| {
        let unfinished = SCHEMES.into_iter().enumerate().filter(move |(_, (_, steps))| number < *steps);
        unfinished.map(move |(index, (scheme, _))| (index, scheme, number))
    });
    let position = usize::try_from(position).unwrap_or(0);
    steps.nth(position).unwrap_or((0, Scheme::Mules, 0))
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Mules => "mules",
            Self::Burst => "burst",
            Self::Structuring => "structuring",
            Self::RoundAmounts => "round-amounts",
            Self::Takeover => "takeover",
            Self::PassThrough => "pass-through",
            Self::Drain => "drain",
        }
    }

    fn is_usual_purchase(self, step: u64) -> bool {
        self == Self::Takeover && step < USUAL_PURCHASES
    }

    /// Returns the content of a step. `of_round` gives the same numbers to all steps of a round, `of_step` does not.
    fn draft(self, step: u64, round: u64, of_round: &mut SmallRng, of_step: &mut SmallRng) -> Draft {
        match self {
            Self::Mules => debit(of_step.random_range(2_000..=9_000), format!("mule-{round}-{step}")),
            Self::Burst => debit(of_step.random_range(100..=900), "game-11".into()),
            Self::Structuring => debit(of_step.random_range(940_000..=999_900), "exchange-7".into()),
            Self::RoundAmounts => debit(of_step.random_range(1..=5) * 100_000, "atm-9".into()),
            Self::Takeover if self.is_usual_purchase(step) => {
                debit(of_step.random_range(1_000..=4_000), "shop-5".into())
            }
            Self::Takeover => Draft {
                country: abroad(round),
                channel: "phone",
                ..debit(of_step.random_range(200_000..=900_000), "hotel-2".into())
            },
            Self::PassThrough => {
                let received = of_round.random_range(400_000..=600_000) * 3;
                match step {
                    0 => Draft { direction: Direction::Credit, ..debit(received, "wallet-3".into()) },
                    _ => debit(received / 3 - of_step.random_range(0..=9_000), format!("wallet-{step}")),
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
