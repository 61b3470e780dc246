//! Features: what a rule may ask about the account's history, and the windows that answer it.
//!
//! A window is kept up to date row by row: adding one row costs the rows that leave, not the rows that stay, so a busy
//! account is scored as fast as a quiet one. The result is the same as if it had been computed from the rows anew.

use std::collections::VecDeque;

use super::rows::{HeldRow, Label};
use crate::domain::Direction;

/// What is taken over the rows of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    /// How many.
    Count,
    /// Total of the amounts; stays at the ends of `i64` instead of wrapping.
    Sum(Measure),
    /// Smallest amount, 0 for no rows.
    Min(Measure),
    /// Largest amount, 0 for no rows.
    Max(Measure),
    /// How many different texts of a kind (by its place among the tracked ones); rows without one do not count.
    Distinct(usize),
    /// Whole seconds from the last row before the event, −1 if there is none.
    SecondsSinceLast,
}

/// Which amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// Positive.
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
    /// Microseconds; None: as far back as the history reaches.
    pub window: Option<i64>,
    /// Whether the event itself counts.
    pub include_event: bool,
    pub direction: Option<Direction>,
    /// Positions in the currency's amounts.
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

/// The rows that are inside a feature's window now, summed up.
#[derive(Debug)]
pub(super) struct Window {
    /// The first row inside, counted from the first row ever.
    first: u64,
    state: State,
}

/// Rows that are or can still become the extreme, best first.
#[derive(Debug, Default)]
struct Candidates(VecDeque<(u64, i64)>);

/// An account has one for each feature, so what only some need lies elsewhere.
#[derive(Debug)]
enum State {
    Count(i64),
    Sum(Box<i128>),
    Extreme(Box<Candidates>),
    /// How often each occurs, sorted.
    Distinct(Vec<(Label, u32)>),
    /// Number and time of the last row.
    Last(Option<(u64, i64)>),
}

impl Window {
    pub fn new(feature: &Feature) -> Self {
        let state = match feature.aggregate {
            Aggregate::Count => State::Count(0),
            Aggregate::Sum(_) => State::Sum(Box::default()),
            Aggregate::Min(_) | Aggregate::Max(_) => State::Extreme(Box::default()),
            Aggregate::Distinct(_) => State::Distinct(Vec::new()),
            Aggregate::SecondsSinceLast => State::Last(None),
        };
        Self { first: 0, state }
    }

    /// About how many bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        let beside = match &self.state {
            State::Count(_) | State::Last(_) => 0,
            State::Sum(_) => size_of::<i128>(),
            State::Extreme(rows) => size_of::<Candidates>() + rows.0.capacity() * size_of::<(u64, i64)>(),
            State::Distinct(values) => values.capacity() * size_of::<(Label, u32)>(),
        };
        size_of::<Self>() + beside
    }

    /// The first row that has not left yet.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Takes a new row in.
    pub fn enter(&mut self, feature: &Feature, amounts: &[i64], number: u64, row: HeldRow<'_>) {
        if !feature.takes(row, amounts) {
            return;
        }
        match &mut self.state {
            State::Count(count) => *count += 1,
            State::Sum(sum) => **sum += i128::from(measured(feature, row)),
            State::Extreme(rows) => {
                let value = measured(feature, row);
                let smallest = matches!(feature.aggregate, Aggregate::Min(_));
                let beaten = |old: i64| if smallest { old >= value } else { old <= value };
                while rows.0.back().is_some_and(|(_, old)| beaten(*old)) {
                    rows.0.pop_back();
                }
                rows.0.push_back((number, value));
            }
            State::Distinct(values) => note(values, labelled(feature, row)),
            State::Last(last) => *last = Some((number, row.numbers.at_micros)),
        }
    }

    /// Lets the first row inside go; it must be `row`, number `first()`.
    pub fn leave(&mut self, feature: &Feature, amounts: &[i64], row: HeldRow<'_>) {
        let number = self.first;
        self.first += 1;
        if !feature.takes(row, amounts) {
            return;
        }
        match &mut self.state {
            State::Count(count) => *count -= 1,
            State::Sum(sum) => **sum -= i128::from(measured(feature, row)),
            State::Extreme(rows) => {
                if rows.0.front().is_some_and(|(front, _)| *front == number) {
                    rows.0.pop_front();
                }
            }
            State::Distinct(values) => forget(values, labelled(feature, row)),
            State::Last(last) => *last = last.filter(|(known, _)| *known > number),
        }
    }

    /// The feature's value at `now_micros`.
    pub fn value(&self, now_micros: i64) -> i64 {
        match &self.state {
            State::Count(count) => *count,
            State::Sum(sum) => {
                let bounded = (**sum).clamp(i128::from(i64::MIN), i128::from(i64::MAX));
                i64::try_from(bounded).unwrap_or_default()
            }
            State::Extreme(rows) => rows.0.front().map_or(0, |(_, value)| *value),
            State::Distinct(values) => i64::try_from(values.len()).unwrap_or(i64::MAX),
            State::Last(last) => last.map_or(-1, |(_, at)| (now_micros - at) / MICROS_PER_SECOND),
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

fn labelled(feature: &Feature, row: HeldRow<'_>) -> Option<Label> {
    match feature.aggregate {
        Aggregate::Distinct(nth) => row.label(nth),
        _ => None,
    }
}

fn note(values: &mut Vec<(Label, u32)>, value: Option<Label>) {
    let Some(value) = value else { return };
    match values.binary_search_by_key(&value, |(known, _)| *known) {
        Ok(place) => values.get_mut(place).into_iter().for_each(|(_, count)| *count += 1),
        Err(place) => values.insert(place, (value, 1)),
    }
}

fn forget(values: &mut Vec<(Label, u32)>, value: Option<Label>) {
    let Some(value) = value else { return };
    if let Ok(place) = values.binary_search_by_key(&value, |(known, _)| *known)
        && let Some((_, count)) = values.get_mut(place)
    {
        *count -= 1;
        if *count == 0 {
            values.remove(place);
        }
    }
}
