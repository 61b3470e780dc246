//! Features: aggregates over an account's history, and the windows that compute them.
//!
//! A window is updated row by row. The cost of a new row depends on the rows that leave, not on the rows that stay, so a
//! busy account is scored as fast as a quiet one. The result equals a computation from all rows of the window.

use std::collections::VecDeque;

use super::rows::HeldRow;
use crate::domain::Direction;

/// The aggregate over the rows of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    /// The number of rows.
    Count,
    /// The sum of the amounts. Saturates at the limits of `i64`.
    Sum(Measure),
    /// The smallest amount, 0 without rows.
    Min(Measure),
    /// The largest amount, 0 without rows.
    Max(Measure),
    /// The number of different texts of one tracked kind, given by its index. Rows without such a text do not count.
    Distinct(usize),
    /// The whole seconds since the last row before the event, −1 without such a row.
    SecondsSinceLast,
}

/// The amount that is aggregated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// Always positive.
    Amount,
    /// Negative for a debit.
    SignedAmount,
}

/// How a value is shown in a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// A number.
    Number,
    /// Minor units.
    Money,
    /// Seconds.
    Seconds,
}

/// A declared feature.
#[derive(Debug, Clone)]
pub(super) struct Feature {
    pub name: Box<str>,
    pub aggregate: Aggregate,
    /// The width in microseconds. None: the whole history.
    pub window: Option<i64>,
    /// Whether the event itself counts.
    pub include_event: bool,
    pub direction: Option<Direction>,
    /// Indexes of the filter's amounts among the amounts of a currency.
    pub at_least: Option<usize>,
    pub below: Option<usize>,
    pub multiple_of: Option<usize>,
}

impl Feature {
    pub fn unit(&self) -> Unit {
        match self.aggregate {
            Aggregate::Sum(_) | Aggregate::Min(_) | Aggregate::Max(_) => Unit::Money,
            Aggregate::SecondsSinceLast => Unit::Seconds,
            Aggregate::Count | Aggregate::Distinct(_) => Unit::Number,
        }
    }

    /// Returns whether both features aggregate the same rows of a window.
    pub fn takes_same_rows(&self, other: &Self) -> bool {
        let filter =
            |feature: &Self| (feature.direction, feature.at_least, feature.below, feature.multiple_of);
        filter(self) == filter(other)
    }

    /// Returns whether the filter lets the row pass.
    pub fn takes(&self, row: HeldRow, amounts: &[i64]) -> bool {
        let size = row.amount.saturating_abs();
        let bound = |position: Option<usize>| position.and_then(|at| amounts.get(at)).copied();
        size != 0
            && self.direction.is_none_or(|wanted| wanted == Direction::of(row.amount))
            && bound(self.at_least).is_none_or(|least| size >= least)
            && bound(self.below).is_none_or(|limit| size < limit)
            && bound(self.multiple_of).is_none_or(|unit| unit > 0 && size % unit == 0)
    }
}

/// The aggregate of the rows that are inside a feature's window now.
#[derive(Debug)]
pub(super) enum Window {
    Count(i64),
    Sum(i128),
    Extreme(Box<Candidates>),
    /// The number and the time of the last row.
    Last(Option<(i64, i64)>),
    /// The account's texts are counted, see [`super::recent_texts`].
    Texts,
}

/// The rows that are, or can still become, the minimum or maximum; the current one first.
#[derive(Debug, Default)]
pub(super) struct Candidates(VecDeque<(i64, i64)>);

impl Window {
    pub fn new(feature: &Feature) -> Self {
        match feature.aggregate {
            Aggregate::Count => Self::Count(0),
            Aggregate::Sum(_) => Self::Sum(0),
            Aggregate::Min(_) | Aggregate::Max(_) => Self::Extreme(Box::default()),
            Aggregate::Distinct(_) => Self::Texts,
            Aggregate::SecondsSinceLast => Self::Last(None),
        }
    }

    /// Returns about how many bytes of memory the window takes.
    pub fn bytes(&self) -> usize {
        let extra = match self {
            Self::Extreme(rows) => size_of::<Candidates>() + rows.0.capacity() * size_of::<(i64, i64)>(),
            Self::Count(_) | Self::Sum(_) | Self::Last(_) | Self::Texts => 0,
        };
        size_of::<Self>() + extra
    }

    /// Adds a new row.
    pub fn enter(&mut self, feature: &Feature, amounts: &[i64], account_seq: i64, row: HeldRow) {
        if matches!(self, Self::Texts) || !feature.takes(row, amounts) {
            return;
        }
        match self {
            Self::Count(count) => *count += 1,
            Self::Sum(sum) => *sum += i128::from(measured(feature, row)),
            Self::Extreme(rows) => {
                let value = measured(feature, row);
                let smallest = matches!(feature.aggregate, Aggregate::Min(_));
                let beaten = |old: i64| if smallest { old >= value } else { old <= value };
                while rows.0.back().is_some_and(|(_, old)| beaten(*old)) {
                    rows.0.pop_back();
                }
                rows.0.push_back((account_seq, value));
            }
            Self::Last(last) => *last = Some((account_seq, row.at_micros)),
            Self::Texts => {}
        }
    }

    /// Removes the window's first row. Not needed for `Last` and `Texts`.
    pub fn leave(&mut self, feature: &Feature, amounts: &[i64], account_seq: i64, row: HeldRow) {
        if !feature.takes(row, amounts) {
            return;
        }
        match self {
            Self::Count(count) => *count -= 1,
            Self::Sum(sum) => *sum -= i128::from(measured(feature, row)),
            Self::Extreme(rows) => {
                if rows.0.front().is_some_and(|(front, _)| *front == account_seq) {
                    rows.0.pop_front();
                }
            }
            Self::Last(_) | Self::Texts => {}
        }
    }

    /// Returns the feature's value at `now_micros`. `start` is the number of the first row inside the window.
    pub fn value(&self, start: i64, now_micros: i64) -> i64 {
        match self {
            Self::Count(count) => *count,
            Self::Sum(sum) => {
                let bounded = (*sum).clamp(i128::from(i64::MIN), i128::from(i64::MAX));
                i64::try_from(bounded).unwrap_or_default()
            }
            Self::Extreme(rows) => rows.0.front().map_or(0, |(_, value)| *value),
            Self::Last(last) => last
                .filter(|(account_seq, _)| *account_seq >= start)
                .map_or(-1, |(_, at)| (now_micros - at) / MICROS_PER_SECOND),
            Self::Texts => 0,
        }
    }
}

const MICROS_PER_SECOND: i64 = 1_000_000;

fn measured(feature: &Feature, row: HeldRow) -> i64 {
    match feature.aggregate {
        Aggregate::Sum(Measure::SignedAmount)
        | Aggregate::Min(Measure::SignedAmount)
        | Aggregate::Max(Measure::SignedAmount) => row.amount,
        _ => row.amount.saturating_abs(),
    }
}
