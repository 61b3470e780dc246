//! The rows of one account, as a history holds them.
//!
//! Histories are most of what `consume-risk` keeps in memory, so a row has no allocation of its own: its numbers lie in
//! one queue and its labels, as many for each row, in another.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU64,
};

/// Room for this many rows at least is made at once, and for an eighth of what there is.
const ROWS_RESERVED_MIN: usize = 4;

/// A text of which only matters whether another one is the same, as 64 bits of its hash: the texts themselves would take
/// most of a history's memory. That two of the few hundred texts of an account meet in one has a chance of 1 in 10^14.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label(NonZeroU64);

impl Label {
    pub(super) fn of(text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self(NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN))
    }
}

/// The numbers of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub account_seq: i64,
    pub at_micros: i64,
    /// Minor units, negative for a debit.
    pub amount: i64,
}

/// What the features need of a ledger row. Made by [`super::Ruleset::history_row`], which keeps only what its features
/// ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    pub(super) numbers: Numbers,
    /// One for each text that the ruleset tracks, in its order.
    pub(super) labels: Box<[Option<Label>]>,
}

/// A row where it is held.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldRow<'a> {
    pub numbers: Numbers,
    rows: &'a Rows,
    place: usize,
}

impl HeldRow<'_> {
    pub fn label(&self, nth: usize) -> Option<Label> {
        self.rows.labels.get(self.place * self.rows.labels_per_row + nth).copied().flatten()
    }
}

/// In the order of `account_seq`.
#[derive(Debug)]
pub(super) struct Rows {
    numbers: VecDeque<Numbers>,
    labels: VecDeque<Option<Label>>,
    labels_per_row: usize,
}

impl Rows {
    pub fn with_capacity(capacity: usize, labels_per_row: usize) -> Self {
        Self {
            numbers: VecDeque::with_capacity(capacity),
            labels: VecDeque::with_capacity(capacity * labels_per_row),
            labels_per_row,
        }
    }

    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn last_seq(&self) -> Option<i64> {
        self.numbers.back().map(|row| row.account_seq)
    }

    pub fn get(&self, place: usize) -> Option<HeldRow<'_>> {
        self.numbers.get(place).map(|numbers| HeldRow { numbers: *numbers, rows: self, place })
    }

    pub fn iter(&self) -> impl Iterator<Item = HeldRow<'_>> {
        self.numbers.iter().enumerate().map(|(place, numbers)| HeldRow {
            numbers: *numbers,
            rows: self,
            place,
        })
    }

    /// Adds a row, at the end or, which is slow, where it belongs.
    pub fn add(&mut self, row: &HistoryRow) {
        if self.numbers.len() == self.numbers.capacity() {
            // Not as much again, as a queue does by itself.
            let more = self.numbers.len() / 8 + ROWS_RESERVED_MIN;
            self.numbers.reserve_exact(more);
            self.labels.reserve_exact(more * self.labels_per_row);
        }
        let labels = (0..self.labels_per_row).map(|nth| row.labels.get(nth).copied().flatten());
        if self.last_seq().is_none_or(|last| last < row.numbers.account_seq) {
            self.numbers.push_back(row.numbers);
            self.labels.extend(labels);
        } else {
            let place = self.numbers.partition_point(|held| held.account_seq < row.numbers.account_seq);
            self.numbers.insert(place, row.numbers);
            for (nth, label) in labels.enumerate() {
                self.labels.insert(place * self.labels_per_row + nth, label);
            }
        }
    }

    pub fn remove_first(&mut self) {
        self.numbers.pop_front();
        self.labels.drain(..self.labels_per_row.min(self.labels.len()));
    }

    /// How many bytes of memory they take.
    pub fn bytes(&self) -> usize {
        self.numbers.capacity() * size_of::<Numbers>() + self.labels.capacity() * size_of::<Option<Label>>()
    }

    /// How many bytes of memory one such row takes.
    pub fn bytes_of_row(labels_per_row: usize) -> usize {
        size_of::<Numbers>() + labels_per_row * size_of::<Option<Label>>()
    }
}
