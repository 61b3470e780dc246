//! An account's recent rows and the windows over them, kept from one event to the next.
//!
//! What an event sees is bounded twice: by each feature's own window in event time, half open as `(t − window, t]`, and
//! by `history_rows`: rows whose `account_seq` lies within that many of the event's own, the event included. Both are
//! functions of the rows alone, so a history that was carried along and one that was loaded afresh give the same values.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU64,
};

use chrono::{DateTime, Utc};

use super::{
    Ruleset,
    feature::{Feature, Window},
};
use crate::domain::Direction;

/// Room for this many rows at least is made at once.
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

/// What the features need of a ledger row. Made by [`Ruleset::history_row`], which keeps only what its features ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    pub(super) account_seq: i64,
    pub(super) at_micros: i64,
    /// Minor units, negative for a debit.
    pub(super) amount: i64,
    pub(super) counterparty: Option<Label>,
    /// In the order of the ruleset's tracked names.
    pub(super) metadata: Box<[Option<Label>]>,
}

impl HistoryRow {
    pub(super) fn new(account_seq: i64, created_at: DateTime<Utc>, amount: i64) -> Self {
        let at_micros = created_at.timestamp_micros();
        Self { account_seq, at_micros, amount, counterparty: None, metadata: Box::default() }
    }

    pub(super) fn direction(&self) -> Direction {
        if self.amount < 0 { Direction::Debit } else { Direction::Credit }
    }
}

/// One account's rows under one ruleset and in one currency.
#[derive(Debug)]
pub struct AccountHistory {
    rows: VecDeque<HistoryRow>,
    /// The number of `rows[0]`, counted from the first row this history ever held.
    first: u64,
    windows: Box<[Window]>,
    /// Whether the rows that it began with are in the windows.
    entered: bool,
}

impl AccountHistory {
    /// From the account's rows, in any order, each at most once.
    pub fn new(ruleset: &Ruleset, mut rows: Vec<HistoryRow>) -> Self {
        rows.sort_by_key(|row| row.account_seq);
        let windows = ruleset.features().iter().map(Window::new).collect();
        let mut history =
            Self { rows: VecDeque::with_capacity(rows.len()), first: 0, windows, entered: false };
        let skipped = rows.len().saturating_sub(ruleset.history_rows());
        history.rows.extend(rows.into_iter().skip(skipped));
        history
    }

    /// The last row it knows, 0 for none.
    pub fn last_account_seq(&self) -> i64 {
        self.rows.back().map_or(0, |row| row.account_seq)
    }

    /// How many rows it holds.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// About how many bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        let labels: usize = self.rows.front().map_or(0, |row| size_of_val(&*row.metadata));
        let windows: usize = self.windows.iter().map(Window::bytes).sum();
        self.rows.capacity() * size_of::<HistoryRow>() + self.rows.len() * labels + windows
    }

    /// Adds the event's own row and gives each feature's value at that moment.
    pub(super) fn advance(&mut self, ruleset: &Ruleset, amounts: &[i64], row: HistoryRow) -> Vec<i64> {
        let features = ruleset.features();
        self.fill_new_windows(features, amounts);
        self.forget_rows_before(row.account_seq, ruleset.history_rows(), features, amounts);
        let now = row.at_micros;
        for (window, feature) in self.windows.iter_mut().zip(features) {
            let Some(start) = feature.window.map(|width| now.saturating_sub(width)) else { continue };
            while let Some(oldest) = row_at(&self.rows, self.first, window.first())
                && oldest.at_micros <= start
            {
                window.leave(feature, amounts, oldest);
            }
        }
        let before: Vec<i64> = self.windows.iter().map(|window| window.value(now)).collect();
        let number = self.next_number();
        for (window, feature) in self.windows.iter_mut().zip(features) {
            window.enter(feature, amounts, number, &row);
        }
        if self.rows.len() == self.rows.capacity() {
            // Histories are most of the role's memory: a quarter of room instead of as much again.
            self.rows.reserve_exact(self.rows.len() / 4 + ROWS_RESERVED_MIN);
        }
        self.rows.push_back(row);
        let after = self.windows.iter().map(|window| window.value(now));
        features
            .iter()
            .zip(before.into_iter().zip(after))
            .map(|(feature, (before, after))| if feature.include_event { after } else { before })
            .collect()
    }

    fn next_number(&self) -> u64 {
        self.first + u64::try_from(self.rows.len()).unwrap_or(u64::MAX)
    }

    /// Rows that came with [`AccountHistory::new`] enter the windows at the first event, when the amounts that the
    /// filters compare with are known.
    fn fill_new_windows(&mut self, features: &[Feature], amounts: &[i64]) {
        if self.entered {
            return;
        }
        self.entered = true;
        for (window, feature) in self.windows.iter_mut().zip(features) {
            for (number, row) in (0_u64..).zip(&self.rows) {
                window.enter(feature, amounts, number, row);
            }
        }
    }

    fn forget_rows_before(
        &mut self,
        account_seq: i64,
        history_rows: usize,
        features: &[Feature],
        amounts: &[i64],
    ) {
        let reach = i64::try_from(history_rows).unwrap_or(i64::MAX);
        while let Some(oldest) = self.rows.front()
            && oldest.account_seq <= account_seq.saturating_sub(reach)
        {
            for (window, feature) in self.windows.iter_mut().zip(features) {
                if window.first() == self.first {
                    window.leave(feature, amounts, oldest);
                }
            }
            self.rows.pop_front();
            self.first += 1;
        }
    }
}

fn row_at(rows: &VecDeque<HistoryRow>, first: u64, number: u64) -> Option<&HistoryRow> {
    rows.get(usize::try_from(number.checked_sub(first)?).ok()?)
}
