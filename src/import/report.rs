//! The result of an import: counts, sums by currency, and differences from the balances of the other system.

use std::{collections::BTreeMap, time::Duration};

use bigdecimal::BigDecimal;

use super::{outcome::RowOutcome, preview::Preview, row::Row};
use crate::domain::{Currency, Direction, format_minor};

/// The end of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The end of the last file.
    Complete,
    /// A requested stop.
    Interrupted,
    /// A rejected row, with `--on-error stop`.
    Stopped {
        /// The row and why it was rejected.
        reason: String,
    },
    /// A balance that differs by more than the tolerance, with `--on-error stop`. Its group is posted.
    Differs {
        /// The row and both balances.
        reason: String,
    },
    /// A failure of a file or of the database.
    Failed {
        /// The error.
        reason: String,
    },
}

/// The sums of the rows of one currency, in minor units. Replayed rows count too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CurrencySums {
    /// Rows created or replayed.
    pub rows: u64,
    /// The sum of the credits.
    pub credits: i128,
    /// The sum of the debits, positive.
    pub debits: i128,
    /// Rows whose balance differs from the expected balance.
    pub balance_differences: u64,
    /// The largest of these differences.
    pub largest_difference: Option<BalanceDifference>,
}

/// A row whose balance differs from that of the other system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalanceDifference {
    /// The location of the row.
    pub location: String,
    /// The ledger's balance minus the expected balance, in minor units.
    pub difference: i64,
}

/// The result of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether this was a dry run, which writes nothing.
    pub dry_run: bool,
    /// The end of the import.
    pub ending: Ending,
    /// Rows with an outcome.
    pub rows: u64,
    /// New transactions.
    pub created: u64,
    /// Rows that were already in the ledger.
    pub replayed: u64,
    /// Rows that were rejected.
    pub rejected: u64,
    /// Rows of the file that the map skips.
    pub rows_skipped: u64,
    /// Rows with an expected balance.
    pub balances_compared: u64,
    /// Balances that differ by more than the tolerance.
    pub balance_errors: u64,
    /// The sums by currency.
    pub currencies: BTreeMap<Currency, CurrencySums>,
    /// The duration of the import.
    pub elapsed: Duration,
    /// A description of the first of the `balance_errors`.
    pub(super) first_balance_error: Option<String>,
    pub(super) preview: Preview,
    /// Whether a file lists the rejected rows.
    pub(super) rejects_are_listed: bool,
    pub(super) tolerance: Option<BigDecimal>,
}

const TOLERANCE_LENGTH_MAX: usize = 24;

/// Parses a plain decimal such as `0.60`. It is compared with amounts of any currency.
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
            rows_skipped: 0,
            preview: Preview::default(),
            rejects_are_listed: false,
            balances_compared: 0,
            balance_errors: 0,
            currencies: BTreeMap::new(),
            elapsed: Duration::ZERO,
            first_balance_error: None,
            tolerance,
        }
    }

    /// Counts the outcome of a row. Returns the reason if the row was refused.
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
        self.preview.add(row, balance_after);
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

    /// Compares two balances in minor units.
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

    /// Returns whether the import reached the end, no balance differs by more than the tolerance, and every rejected row
    /// is in the list of rejected rows.
    pub fn is_fine(&self) -> bool {
        let has_no_lost_row = self.rejected == 0 || self.rejects_are_listed;
        self.ending == Ending::Complete && self.balance_errors == 0 && has_no_lost_row
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
