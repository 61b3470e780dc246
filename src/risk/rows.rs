//! The rows of one account's history.
//!
//! Histories are most of the memory of `consume-risk`, so a row takes 16 bytes: its time and its amount. Its number
//! follows from its index.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU64,
};

/// The queue grows by an eighth and at least by this many rows. It shrinks when three quarters of it are free.
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

impl HistoryRow {
    pub(super) fn hash(&self, nth: usize) -> Option<TextHash> {
        self.hashes.get(nth).copied().flatten()
    }
}

/// A row inside [`Rows`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeldRow {
    pub at_micros: i64,
    /// Minor units, negative for a debit. 0 for a row that the ledger lacks, which no feature counts.
    pub amount: i64,
}

/// Rows with consecutive numbers.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// The `account_seq` of the first row.
    first_seq: i64,
    held: VecDeque<HeldRow>,
}

impl Rows {
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub fn get(&self, account_seq: i64) -> Option<HeldRow> {
        self.held.get(usize::try_from(account_seq.checked_sub(self.first_seq)?).ok()?).copied()
    }

    /// Adds a row, which must come after the last one. Numbers between the two are filled with rows that count nowhere.
    pub fn add(&mut self, account_seq: i64, row: HeldRow) {
        match self.held.back().copied() {
            None => self.first_seq = account_seq,
            Some(last) => {
                while self.next_seq() < account_seq {
                    self.push(HeldRow { amount: 0, ..last });
                }
            }
        }
        self.push(row);
    }

    /// Removes the rows before `account_seq`.
    pub fn remove_before(&mut self, account_seq: i64) {
        while self.first_seq < account_seq && self.held.pop_front().is_some() {
            self.first_seq += 1;
        }
        if self.held.capacity() > 4 * (self.held.len() + ROWS_RESERVED_MIN) {
            self.held.shrink_to(2 * self.held.len());
        }
    }

    /// Returns how many bytes of memory the rows take.
    pub fn bytes(&self) -> usize {
        self.held.capacity() * size_of::<HeldRow>()
    }

    fn next_seq(&self) -> i64 {
        self.first_seq.saturating_add(i64::try_from(self.held.len()).unwrap_or(i64::MAX))
    }

    fn push(&mut self, row: HeldRow) {
        if self.held.len() == self.held.capacity() {
            // The queue would double its capacity by itself.
            self.held.reserve_exact(self.held.len() / 8 + ROWS_RESERVED_MIN);
        }
        self.held.push_back(row);
    }
}
