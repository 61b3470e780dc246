//! The rows of one account's history.
//!
//! Histories are most of the memory of `consume-risk`, so a row has no allocation of its own: one queue holds the numbers
//! of all rows, another one the text hashes, the same count for each row.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU64,
};

/// The queues grow by an eighth and at least by this many rows.
const ROWS_RESERVED_MIN: usize = 4;

/// A hash of 64 bits in place of a text that is only compared for equality. The texts themselves would take most of a
/// history's memory. The chance that two of an account's few hundred texts have the same hash is 1 in 10^14.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TextHash(NonZeroU64);

impl TextHash {
    pub(super) fn of(text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self(NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN))
    }
}

/// The numbers of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowNumbers {
    pub account_seq: i64,
    pub at_micros: i64,
    /// Minor units, negative for a debit.
    pub amount: i64,
}

/// The parts of a ledger row that the features of a ruleset need. Made by [`super::Ruleset::history_row`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    pub(super) numbers: RowNumbers,
    /// One for each text that the ruleset tracks, in the same order.
    pub(super) hashes: Box<[Option<TextHash>]>,
}

/// A row inside [`Rows`].
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldRow<'a> {
    pub numbers: RowNumbers,
    rows: &'a Rows,
    index: usize,
}

impl HeldRow<'_> {
    pub fn hash(&self, nth: usize) -> Option<TextHash> {
        self.rows.hashes.get(self.index * self.rows.hashes_per_row + nth).copied().flatten()
    }
}

/// Rows in the order of `account_seq`.
#[derive(Debug)]
pub(super) struct Rows {
    numbers: VecDeque<RowNumbers>,
    hashes: VecDeque<Option<TextHash>>,
    hashes_per_row: usize,
}

impl Rows {
    pub fn with_capacity(capacity: usize, hashes_per_row: usize) -> Self {
        Self {
            numbers: VecDeque::with_capacity(capacity),
            hashes: VecDeque::with_capacity(capacity * hashes_per_row),
            hashes_per_row,
        }
    }

    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn last_seq(&self) -> Option<i64> {
        self.numbers.back().map(|row| row.account_seq)
    }

    pub fn get(&self, index: usize) -> Option<HeldRow<'_>> {
        self.numbers.get(index).map(|numbers| HeldRow { numbers: *numbers, rows: self, index })
    }

    pub fn iter(&self) -> impl Iterator<Item = HeldRow<'_>> {
        self.numbers.iter().enumerate().map(|(index, numbers)| HeldRow {
            numbers: *numbers,
            rows: self,
            index,
        })
    }

    /// Adds a row at its place in the order. This is fast only at the end.
    pub fn add(&mut self, row: &HistoryRow) {
        if self.numbers.len() == self.numbers.capacity() {
            // A queue would double its capacity by itself.
            let more = self.numbers.len() / 8 + ROWS_RESERVED_MIN;
            self.numbers.reserve_exact(more);
            self.hashes.reserve_exact(more * self.hashes_per_row);
        }
        let hashes = (0..self.hashes_per_row).map(|nth| row.hashes.get(nth).copied().flatten());
        if self.last_seq().is_none_or(|last| last < row.numbers.account_seq) {
            self.numbers.push_back(row.numbers);
            self.hashes.extend(hashes);
        } else {
            let index = self.numbers.partition_point(|held| held.account_seq < row.numbers.account_seq);
            self.numbers.insert(index, row.numbers);
            for (nth, hash) in hashes.enumerate() {
                self.hashes.insert(index * self.hashes_per_row + nth, hash);
            }
        }
    }

    pub fn remove_first(&mut self) {
        self.numbers.pop_front();
        self.hashes.drain(..self.hashes_per_row.min(self.hashes.len()));
    }

    /// Returns how many bytes of memory the rows take.
    pub fn bytes(&self) -> usize {
        self.numbers.capacity() * size_of::<RowNumbers>()
            + self.hashes.capacity() * size_of::<Option<TextHash>>()
    }

    /// Returns how many bytes of memory one row takes.
    pub fn bytes_of_row(hashes_per_row: usize) -> usize {
        size_of::<RowNumbers>() + hashes_per_row * size_of::<Option<TextHash>>()
    }
}
