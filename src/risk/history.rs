//! An account's recent rows and the windows over them, kept from one event to the next.
//!
//! What an event sees is bounded twice: by each feature's own window in event time, half open as `(t − window, t]`, and
//! by `history_rows`: rows whose `account_seq` lies within that many of the event's own, the event included. Both are
//! functions of the rows alone, so a history that was carried along and one that was loaded afresh give the same values.

use super::{
    Ruleset,
    feature::{Feature, Window},
    rows::{HeldRow, HistoryRow, Rows},
};

/// One account's rows under one ruleset and in one currency.
#[derive(Debug)]
pub struct AccountHistory {
    rows: Rows,
    /// The number of the first row in `rows`, counted from the first row this history ever held.
    first: u64,
    windows: Box<[Window]>,
    /// Whether the rows that it began with are in the windows.
    entered: bool,
}

impl AccountHistory {
    /// Of an account without rows.
    pub fn new(ruleset: &Ruleset) -> Self {
        Self::with_room(ruleset, 0)
    }

    /// For an account of which so many rows will be added.
    pub fn with_room(ruleset: &Ruleset, rows: usize) -> Self {
        let windows = ruleset.features().iter().map(Window::new).collect();
        let rows = Rows::with_capacity(rows.min(ruleset.history_rows()), ruleset.labels_per_row());
        Self { rows, first: 0, windows, entered: false }
    }

    /// Adds a row of before the first event that is scored. They come in any order, each at most once.
    pub fn add_earlier(&mut self, row: &HistoryRow) {
        debug_assert!(!self.entered, "no event was scored yet");
        self.rows.add(row);
    }

    /// The last row it knows, 0 for none.
    pub fn last_account_seq(&self) -> i64 {
        self.rows.last_seq().unwrap_or(0)
    }

    /// About how many bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        self.rows.bytes() + self.windows.iter().map(Window::bytes).sum::<usize>()
    }

    /// Adds the event's own row and gives each feature's value at that moment.
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

    /// The rows of before enter the windows at the first event, when the amounts that the
    /// filters compare with are known.
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
        let reach = i64::try_from(history_rows).unwrap_or(i64::MAX);
        while let Some(oldest) = self.rows.get(0)
            && oldest.numbers.account_seq <= account_seq.saturating_sub(reach)
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
