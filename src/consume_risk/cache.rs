//! Account histories in memory, for one partition: the accounts of the last few thousand events need no query.
//!
//! Bounded by rows, not by accounts. Two generations stand in for a list of recent use: what is used moves to the
//! young one, and when that is full the old one is dropped whole. Nothing rests on a history being here.

use std::collections::HashMap;

use crate::risk::AccountHistory;

/// Rows in one generation; a row takes about 100 bytes.
const ROWS_MAX: usize = 100_000;

#[derive(Default)]
pub(super) struct HistoryCache {
    young: HashMap<String, AccountHistory>,
    old: HashMap<String, AccountHistory>,
    /// Rows in `young` when they came in, and one for each account.
    rows: usize,
}

impl HistoryCache {
    /// Takes a history out, to be put back by [`HistoryCache::put`].
    pub fn take(&mut self, account_id: &str) -> Option<AccountHistory> {
        let history = self.young.remove(account_id);
        if let Some(history) = &history {
            self.rows = self.rows.saturating_sub(weight(history));
        }
        history.or_else(|| self.old.remove(account_id))
    }

    /// The last row that the cache knows of an account.
    pub fn last_account_seq(&self, account_id: &str) -> Option<i64> {
        let history = self.young.get(account_id).or_else(|| self.old.get(account_id))?;
        Some(history.last_account_seq())
    }

    pub fn put(&mut self, account_id: &str, history: AccountHistory) {
        self.rows += weight(&history);
        self.young.insert(account_id.to_owned(), history);
        if self.rows > ROWS_MAX {
            self.old = std::mem::take(&mut self.young);
            self.rows = 0;
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Windows cost about as much as a few rows.
fn weight(history: &AccountHistory) -> usize {
    history.len() + 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::risk::Ruleset;

    #[test]
    fn what_is_used_stays_and_the_rest_is_dropped() {
        let ruleset = Ruleset::parse("[levels]\nmedium = 1\nhigh = 2\n").expect("valid");
        let mut cache = HistoryCache::default();
        cache.put("used", AccountHistory::new(&ruleset, Vec::new()));
        for number in 0..ROWS_MAX {
            cache.put(&number.to_string(), AccountHistory::new(&ruleset, Vec::new()));
            let used = cache.take("used").expect("still there");
            cache.put("used", used);
        }
        assert!(cache.young.len() + cache.old.len() <= ROWS_MAX / 4);
        assert!(cache.take("0").is_none());
    }
}
