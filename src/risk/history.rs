//! An account's recent rows and the windows over them, kept from one event to the next.
//!
//! Two limits decide which rows an event sees:
//! - the window of each feature in event time, half open: `(t − window, t]`,
//! - `history_rows`: the last rows by `account_seq`, the event included.
//!
//! Both depend only on the rows, so a history that is kept in memory and one that is loaded again give the same values.

use super::{
    Ruleset,
    feature::{Feature, Window},
    rows::{HeldRow, HistoryRow, Rows},
};

/// The history of one account for one ruleset and one currency.
#[derive(Debug)]
pub struct AccountHistory {
    rows: Rows,
    /// The number of the first row in `rows`, counted from the first row that this history ever held.
    first: u64,
    windows: Box<[Window]>,
    /// Whether the earlier rows have been added to the windows.
    entered: bool,
}

impl AccountHistory {
    /// Returns the history of an account without rows.
    pub fn new(ruleset: &Ruleset) -> Self {
        Self::with_room(ruleset, 0)
    }

    /// Returns an empty history with room for this many rows.
    pub fn with_room(ruleset: &Ruleset, rows: usize) -> Self {
        let windows = ruleset.features().iter().map(Window::new).collect();
        let rows = Rows::with_capacity(rows.min(ruleset.history_rows()), ruleset.hashes_per_row());
        Self { rows, first: 0, windows, entered: false }
    }

    /// Adds a row from before the first scored event. Rows may come in any order, each at most once.
    pub fn add_earlier(&mut self, row: &HistoryRow) {
        debug_assert!(!self.entered, "no event was scored yet");
        self.rows.add(row);
    }

    /// The `account_seq` of the last row, 0 without rows.
    pub fn last_account_seq(&self) -> i64 {
        self.rows.last_seq().unwrap_or(0)
    }

    /// Returns about how many bytes of memory the history takes.
    pub fn bytes(&self) -> usize {
        self.rows.bytes() + self.windows.iter().map(Window::bytes).sum::<usize>()
    }

    /// Adds the event's own row and returns the value of each feature at that moment.
    pub(super) fn advance(&mut self, ruleset: &Ruleset, amounts: &[i64], row: &HistoryRow) -> Vec<i64> {
        let features = ruleset.features();
        self.fill_new_windows(features, amounts);
        self.forget_rows_before(row.numbers.account_seq, ruleset.history_rows(), features, amounts);
        let now = row.numbers.at_micros;
        for (window, feature) in self.windows.iter_mut().zip(features) {
            let Some(start) = feature.window.map(|width| now.saturating_sub(width)) else { continue };
            while let Some(oldest) = row_at(&self.rows, self.first, window.first())
                && oldest.numbers.at_micros <= start
            {
                window.leave(feature, amounts, oldest);
            }
        }
        let before: Vec<i64> = self.windows.iter().map(|window| window.value(now)).collect();
        let number = self.next_number();
        self.rows.add(row);
        if let Some(own) = row_at(&self.rows, self.first, number) {
            for (window, feature) in self.windows.iter_mut().zip(features) {
                window.enter(feature, amounts, number, own);
            }
        }
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

    /// Adds the earlier rows to the windows at the first event: only then are the currency's amounts known, which the
    /// filters need.
    fn fill_new_windows(&mut self, features: &[Feature], amounts: &[i64]) {
        if self.entered {
            return;
        }
        self.entered = true;
        for (window, feature) in self.windows.iter_mut().zip(features) {
            for (number, row) in (0_u64..).zip(self.rows.iter()) {
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
        let rows_back = i64::try_from(history_rows).unwrap_or(i64::MAX);
        while let Some(oldest) = self.rows.get(0)
            && oldest.numbers.account_seq <= account_seq.saturating_sub(rows_back)
        {
            for (window, feature) in self.windows.iter_mut().zip(features) {
                if window.first() == self.first {
                    window.leave(feature, amounts, oldest);
                }
            }
            self.rows.remove_first();
            self.first += 1;
        }
    }
}

fn row_at(rows: &Rows, first: u64, number: u64) -> Option<HeldRow<'_>> {
    rows.get(usize::try_from(number.checked_sub(first)?).ok()?)
}
