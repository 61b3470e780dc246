//! An account's recent rows and the windows over them, kept from one event to the next.
//!
//! Two limits decide which rows an event sees:
//! - the window of each feature in event time, half open: `(t − window, t]`,
//! - `history_rows`: the last rows by `account_seq`, the event included.
//!
//! Both depend only on the rows, so a history in memory and a history that is loaded again give the same values.
//!
//! A history keeps only what a feature can still need: the time and amount of the rows inside the widest window, the
//! texts inside the widest window that counts them, and the current value of each feature.

use super::{
    Ruleset,
    feature::{Feature, Window},
    layout::{FeatureParts, HistoryLayout},
    recent_texts::RecentTexts,
    rows::{HeldRow, HistoryRow, RowNumbers, Rows},
};

/// The history of one account for one ruleset and one currency.
#[derive(Debug)]
pub struct AccountHistory {
    rows: Rows,
    /// The number of the last row.
    last_seq: i64,
    /// The number of the first row inside each width of the layout.
    starts: Box<[i64]>,
    /// One for each feature.
    windows: Box<[Window]>,
    /// One for each set of texts of the layout.
    texts: Box<[RecentTexts]>,
    /// Earlier rows that are not yet in the windows: the filters need the currency's amounts, which are known only at the
    /// first event.
    earlier: Vec<HistoryRow>,
}

/// The same values for each step of an update.
#[derive(Clone, Copy)]
struct Rules<'a> {
    features: &'a [Feature],
    layout: &'a HistoryLayout,
    amounts: &'a [i64],
    history_rows: i64,
}

impl AccountHistory {
    /// Returns the history of an account without rows.
    pub fn new(ruleset: &Ruleset) -> Self {
        let layout = ruleset.layout();
        Self {
            rows: Rows::default(),
            last_seq: 0,
            starts: layout.widths.iter().map(|_| 0).collect(),
            windows: ruleset.features().iter().map(Window::new).collect(),
            texts: layout.texts.iter().map(|_| RecentTexts::default()).collect(),
            earlier: Vec::new(),
        }
    }

    /// Adds a row from before the first scored event. Rows may come in any order, each at most once.
    pub fn add_earlier(&mut self, row: HistoryRow) {
        debug_assert!(self.rows.is_empty(), "no event was scored yet");
        self.last_seq = self.last_seq.max(row.numbers.account_seq);
        self.earlier.push(row);
    }

    /// The `account_seq` of the last row, 0 without rows.
    pub fn last_account_seq(&self) -> i64 {
        self.last_seq
    }

    /// Returns about how many bytes of memory the history takes.
    pub fn bytes(&self) -> usize {
        let earlier =
            self.earlier.first().map_or(0, |row| size_of::<HistoryRow>() + size_of_val(&*row.hashes));
        self.rows.bytes()
            + self.earlier.capacity() * earlier
            + size_of_val(&*self.starts)
            + self.windows.iter().map(Window::bytes).sum::<usize>()
            + self.texts.iter().map(|texts| size_of::<RecentTexts>() + texts.bytes()).sum::<usize>()
    }

    /// Adds the event's own row and returns the value of each feature at that moment.
    pub(super) fn advance(&mut self, ruleset: &Ruleset, amounts: &[i64], row: &HistoryRow) -> Vec<i64> {
        let rules = Rules {
            features: ruleset.features(),
            layout: ruleset.layout(),
            amounts,
            history_rows: i64::try_from(ruleset.history_rows()).unwrap_or(i64::MAX),
        };
        self.enter_earlier_rows(rules);
        let RowNumbers { account_seq, at_micros, .. } = row.numbers;
        self.leave(rules, row.numbers);
        let first_seen = first_seen(rules, account_seq);
        let values = |history: &Self| -> Vec<i64> {
            let parts = rules.layout.parts.iter();
            let windows = history.windows.iter().zip(parts);
            windows.map(|(window, parts)| history.value(window, *parts, first_seen, at_micros)).collect()
        };
        let mut seen = values(self);
        self.enter(rules, row);
        for ((before, after), feature) in seen.iter_mut().zip(values(self)).zip(rules.features) {
            if feature.include_event {
                *before = after;
            }
        }
        seen
    }

    fn enter_earlier_rows(&mut self, rules: Rules<'_>) {
        let mut earlier = std::mem::take(&mut self.earlier);
        earlier.sort_unstable_by_key(|row| row.numbers.account_seq);
        for row in &earlier {
            self.leave(rules, row.numbers);
            self.enter(rules, row);
        }
    }

    /// Removes the rows that the next row does not see.
    fn leave(&mut self, rules: Rules<'_>, next: RowNumbers) {
        let first_seen = first_seen(rules, next.account_seq);
        for (start, width) in self.starts.iter_mut().zip(&rules.layout.widths) {
            let before = next.at_micros.saturating_sub(width.micros);
            while let Some(row) = self.rows.get(*start)
                && (*start < first_seen || row.at_micros <= before)
            {
                for index in &width.features {
                    if let (Some(window), Some(feature)) =
                        (self.windows.get_mut(*index), rules.features.get(*index))
                    {
                        window.leave(feature, rules.amounts, *start, row);
                    }
                }
                *start += 1;
            }
        }
        // Without windows no row is needed again.
        self.rows.remove_before(self.starts.iter().copied().min().unwrap_or(i64::MAX));
        for (texts, counted) in self.texts.iter_mut().zip(&rules.layout.texts) {
            let starts = counted.widths.iter().filter_map(|width| self.starts.get(*width));
            texts.forget_before(starts.copied().min().unwrap_or(i64::MIN));
        }
    }

    /// Adds a row, which must come after the last one.
    fn enter(&mut self, rules: Rules<'_>, row: &HistoryRow) {
        let RowNumbers { account_seq, at_micros, amount } = row.numbers;
        let held = HeldRow { at_micros, amount };
        if self.rows.is_empty() {
            self.starts.fill(account_seq);
        }
        self.rows.add(account_seq, held);
        self.last_seq = account_seq;
        for (window, feature) in self.windows.iter_mut().zip(rules.features) {
            window.enter(feature, rules.amounts, account_seq, held);
        }
        for (texts, counted) in self.texts.iter_mut().zip(&rules.layout.texts) {
            let feature = rules.features.get(counted.feature);
            if feature.is_some_and(|feature| feature.takes(held, rules.amounts))
                && let Some(text) = row.hash(counted.nth)
            {
                texts.add(text, account_seq);
            }
        }
    }

    fn value(&self, window: &Window, parts: FeatureParts, first_seen: i64, now: i64) -> i64 {
        let start = parts.width.and_then(|width| self.starts.get(width)).copied().unwrap_or(first_seen);
        match parts.texts.and_then(|texts| self.texts.get(texts)) {
            Some(texts) => i64::try_from(texts.count_from(start)).unwrap_or(i64::MAX),
            None => window.value(start, now),
        }
    }
}

/// Returns the number of the first row that the event with this number sees.
fn first_seen(rules: Rules<'_>, account_seq: i64) -> i64 {
    account_seq.saturating_sub(rules.history_rows).saturating_add(1)
}
