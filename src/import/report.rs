//! What an import did: counts, sums per currency, and how far balances are from what the other system showed.

use std::{collections::BTreeMap, time::Duration};

use bigdecimal::BigDecimal;

use super::{outcome::RowOutcome, reader::Row};
use crate::domain::{Currency, Direction, format_minor};

/// How the import ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// At the end of the last file.
    Complete,
    /// Asked to stop.
    Interrupted,
    /// At a row that was not to be passed over.
    Stopped {
        /// Which, and why.
        reason: String,
    },
    /// After the group of a row whose balance is further off than tolerated.
    Differs {
        /// Which, and how far.
        reason: String,
    },
    /// At trouble with a file or with the database.
    Failed {
        /// What it was.
        reason: String,
    },
}

/// What the rows of one currency add up to, in minor units. Rows that were there already count too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CurrencySums {
    /// Rows created or replayed.
    pub rows: u64,
    /// Sum of credits.
    pub credits: i128,
    /// Sum of debits, positive.
    pub debits: i128,
    /// Rows whose balance differs from the expected one.
    pub balance_differences: u64,
    /// The largest of them.
    pub largest_difference: Option<BalanceDifference>,
}

/// A row whose balance is not what the other system showed. Minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalanceDifference {
    /// Where the row stands.
    pub location: String,
    /// The ledger's balance less the expected one.
    pub difference: i64,
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether nothing was written.
    pub dry_run: bool,
    /// How it ended.
    pub ending: Ending,
    /// Rows read and decided on.
    pub rows: u64,
    /// New transactions.
    pub created: u64,
    /// Rows that were in the ledger already.
    pub replayed: u64,
    /// Rows that were not taken.
    pub rejected: u64,
    /// Rows that gave an expected balance.
    pub balances_compared: u64,
    /// Balances further off than tolerated.
    pub balance_errors: u64,
    /// By currency.
    pub currencies: BTreeMap<Currency, CurrencySums>,
    /// How long it took.
    pub elapsed: Duration,
    /// The first of `balance_errors`, in words.
    pub(super) first_balance_error: Option<String>,
    tolerance: Option<BigDecimal>,
}

const TOLERANCE_LENGTH_MAX: usize = 24;

/// `0.60`: a plain decimal, of no currency yet.
pub(super) fn parse_tolerance(text: &str) -> Result<BigDecimal, String> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = text.splitn(2, '.');
    let plain = text.len() <= TOLERANCE_LENGTH_MAX && parts.all(is_number);
    let parsed = plain.then(|| text.parse().ok()).flatten();
    parsed.ok_or_else(|| "must be an amount such as 0.60".to_owned())
}

impl Report {
    pub(super) fn new(dry_run: bool, tolerance: Option<BigDecimal>) -> Self {
        Self {
            dry_run,
            ending: Ending::Complete,
            rows: 0,
            created: 0,
            replayed: 0,
            rejected: 0,
            balances_compared: 0,
            balance_errors: 0,
            currencies: BTreeMap::new(),
            elapsed: Duration::ZERO,
            first_balance_error: None,
            tolerance,
        }
    }

    /// Books one row; answers why it was not taken, if it was not.
    pub(super) fn count(&mut self, row: &Row, outcome: RowOutcome) -> Option<String> {
        let balance_after = match outcome {
            RowOutcome::Refused { reason } => return Some(reason),
            RowOutcome::Created { balance_after } => {
                self.created += 1;
                balance_after
            }
            RowOutcome::Replayed { balance_after } => {
                self.replayed += 1;
                balance_after
            }
        };
        self.rows += 1;
        let sums = self.currencies.entry(row.posting.currency).or_default();
        sums.rows += 1;
        let amount = i128::from(row.posting.amount.minor());
        match row.posting.direction {
            Direction::Credit => sums.credits += amount,
            Direction::Debit => sums.debits += amount,
        }
        if let Some(expected) = row.expected_balance {
            self.compare(row, expected, balance_after);
        }
        None
    }

    /// Both in minor units.
    fn compare(&mut self, row: &Row, expected: i64, balance: i64) {
        self.balances_compared += 1;
        let difference = balance.saturating_sub(expected);
        if difference == 0 {
            return;
        }
        let currency = row.posting.currency;
        if let Some(tolerance) = &self.tolerance {
            let distance = BigDecimal::new(difference.unsigned_abs().into(), currency.decimals().into());
            if distance > *tolerance {
                self.balance_errors += 1;
                self.first_balance_error.get_or_insert_with(|| {
                    format!(
                        "{}: the balance is {} {currency}, but expected_balance is {}",
                        row.location,
                        format_minor(balance, currency),
                        format_minor(expected, currency)
                    )
                });
            }
        }
        let sums = self.currencies.entry(currency).or_default();
        sums.balance_differences += 1;
        let largest =
            sums.largest_difference.as_ref().map_or(0, |largest| largest.difference.saturating_abs());
        if difference.saturating_abs() > largest {
            sums.largest_difference =
                Some(BalanceDifference { location: row.location.to_string(), difference });
        }
    }

    pub(super) fn count_rejects(&mut self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.rows += count;
        self.rejected += count;
    }

    pub(super) fn ended(self, ending: Ending, elapsed: Duration) -> Self {
        Self { ending, elapsed, ..self }
    }

    /// Whether it reached the end and no balance is further off than tolerated.
    pub fn is_fine(&self) -> bool {
        self.ending == Ending::Complete && self.balance_errors == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tolerance_is_a_plain_decimal_of_any_currency() {
        for (text, minor, scale) in [("0.60", 60, 2), ("5", 5, 0), ("0.6", 600, 3), ("00", 0, 0)] {
            assert_eq!(parse_tolerance(text), Ok(BigDecimal::new(minor.into(), scale)), "{text}");
        }
        let long = "1".repeat(25);
        for text in ["", ".", ".5", "5.", "1.2.3", "-1", "+1", "1e3", "0,60", " 1", long.as_str()] {
            assert!(parse_tolerance(text).is_err(), "{text}");
        }
    }
}
