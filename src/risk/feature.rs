//! Features: aggregates over an account's history, and the windows that compute them.
//!
//! A window is updated row by row. The cost of a new row depends on the rows that leave, not on the rows that stay, so a
//! busy account is scored as fast as a quiet one. The result equals a computation from all rows of the window.

use std::collections::VecDeque;

use super::rows::{HeldRow, TextHash};
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

    fn takes(&self, row: HeldRow<'_>, amounts: &[i64]) -> bool {
        let size = row.numbers.amount.saturating_abs();
        let bound = |position: Option<usize>| position.and_then(|at| amounts.get(at)).copied();
        self.direction.is_none_or(|wanted| wanted == Direction::of(row.numbers.amount))
            && bound(self.at_least).is_none_or(|least| size >= least)
            && bound(self.below).is_none_or(|limit| size < limit)
            && bound(self.multiple_of).is_none_or(|unit| unit > 0 && size % unit == 0)
    }
}

/// The rows that are inside a feature's window now, aggregated.
#[derive(Debug)]
pub(super) struct Window {
    /// The number of the first row inside, counted from the first row of the account's history.
    first: u64,
    state: WindowState,
}

/// The rows that are, or can still become, the minimum or maximum; the current one first.
#[derive(Debug, Default)]
struct Candidates(VecDeque<(u64, i64)>);

/// An account has one for each feature, so large values are boxed.
#[derive(Debug)]
enum WindowState {
    Count(i64),
    Sum(Box<i128>),
    Extreme(Box<Candidates>),
    /// Each text with its number of rows, sorted.
    Distinct(Vec<(TextHash, u32)>),
    /// The number and the time of the last row.
    Last(Option<(u64, i64)>),
}

impl Window {
    pub fn new(feature: &Feature) -> Self {
        let state = match feature.aggregate {
            Aggregate::Count => WindowState::Count(0),
            Aggregate::Sum(_) => WindowState::Sum(Box::default()),
            Aggregate::Min(_) | Aggregate::Max(_) => WindowState::Extreme(Box::default()),
            Aggregate::Distinct(_) => WindowState::Distinct(Vec::new()),
            Aggregate::SecondsSinceLast => WindowState::Last(None),
        };
        Self { first: 0, state }
    }

    /// Returns about how many bytes of memory the window takes.
    pub fn bytes(&self) -> usize {
        let extra = match &self.state {
            WindowState::Count(_) | WindowState::Last(_) => 0,
            WindowState::Sum(_) => size_of::<i128>(),
            WindowState::Extreme(rows) => {
                size_of::<Candidates>() + rows.0.capacity() * size_of::<(u64, i64)>()
            }
            WindowState::Distinct(values) => values.capacity() * size_of::<(TextHash, u32)>(),
        };
        size_of::<Self>() + extra
    }

    /// The number of the first row inside.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Adds a new row.
    pub fn enter(&mut self, feature: &Feature, amounts: &[i64], number: u64, row: HeldRow<'_>) {
        if !feature.takes(row, amounts) {
            return;
        }
        match &mut self.state {
            WindowState::Count(count) => *count += 1,
            WindowState::Sum(sum) => **sum += i128::from(measured(feature, row)),
            WindowState::Extreme(rows) => {
                let value = measured(feature, row);
                let smallest = matches!(feature.aggregate, Aggregate::Min(_));
                let beaten = |old: i64| if smallest { old >= value } else { old <= value };
                while rows.0.back().is_some_and(|(_, old)| beaten(*old)) {
                    rows.0.pop_back();
                }
                rows.0.push_back((number, value));
            }
            WindowState::Distinct(values) => add_text(values, hash_of(feature, row)),
            WindowState::Last(last) => *last = Some((number, row.numbers.at_micros)),
        }
    }

    /// Removes the first row, which must be `row`, with the number `first()`.
    pub fn leave(&mut self, feature: &Feature, amounts: &[i64], row: HeldRow<'_>) {
        let number = self.first;
        self.first += 1;
        if !feature.takes(row, amounts) {
            return;
        }
        match &mut self.state {
            WindowState::Count(count) => *count -= 1,
            WindowState::Sum(sum) => **sum -= i128::from(measured(feature, row)),
            WindowState::Extreme(rows) => {
                if rows.0.front().is_some_and(|(front, _)| *front == number) {
                    rows.0.pop_front();
                }
            }
            WindowState::Distinct(values) => remove_text(values, hash_of(feature, row)),
            WindowState::Last(last) => *last = last.filter(|(known, _)| *known > number),
        }
    }

    /// Returns the feature's value at `now_micros`.
    pub fn value(&self, now_micros: i64) -> i64 {
        match &self.state {
            WindowState::Count(count) => *count,
            WindowState::Sum(sum) => {
                let bounded = (**sum).clamp(i128::from(i64::MIN), i128::from(i64::MAX));
                i64::try_from(bounded).unwrap_or_default()
            }
            WindowState::Extreme(rows) => rows.0.front().map_or(0, |(_, value)| *value),
            WindowState::Distinct(values) => i64::try_from(values.len()).unwrap_or(i64::MAX),
            WindowState::Last(last) => last.map_or(-1, |(_, at)| (now_micros - at) / MICROS_PER_SECOND),
        }
    }
}

const MICROS_PER_SECOND: i64 = 1_000_000;

fn measured(feature: &Feature, row: HeldRow<'_>) -> i64 {
    match feature.aggregate {
        Aggregate::Sum(Measure::SignedAmount)
        | Aggregate::Min(Measure::SignedAmount)
        | Aggregate::Max(Measure::SignedAmount) => row.numbers.amount,
        _ => row.numbers.amount.saturating_abs(),
    }
}

fn hash_of(feature: &Feature, row: HeldRow<'_>) -> Option<TextHash> {
    match feature.aggregate {
        Aggregate::Distinct(nth) => row.hash(nth),
        _ => None,
    }
}

fn add_text(values: &mut Vec<(TextHash, u32)>, value: Option<TextHash>) {
    let Some(value) = value else { return };
    match values.binary_search_by_key(&value, |(known, _)| *known) {
        Ok(index) => values.get_mut(index).into_iter().for_each(|(_, count)| *count += 1),
        Err(index) => values.insert(index, (value, 1)),
    }
}

fn remove_text(values: &mut Vec<(TextHash, u32)>, value: Option<TextHash>) {
    let Some(value) = value else { return };
    if let Ok(index) = values.binary_search_by_key(&value, |(known, _)| *known)
        && let Some((_, count)) = values.get_mut(index)
    {
        *count -= 1;
        if *count == 0 {
            values.remove(index);
        }
    }
}
