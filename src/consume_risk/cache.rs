//! Keeps the account histories of one partition in memory, so that events of recently used accounts need no query.
//!
//! The cache is bounded by bytes, not by accounts. It has two generations instead of an LRU list. An account that is
//! used moves to the young generation. When both together exceed the bound, the old generation is dropped and the young
//! one becomes the old one. While all accounts fit, none is dropped. Correctness never depends on the cache.

use std::collections::HashMap;

use crate::{domain::Currency, risk::AccountHistory};

/// The memory that an account takes in addition to its history: its id and its entry in the map.
const ACCOUNT_BYTES: usize = 160;

/// The history and the currency of an account. The history ends with its last transaction that was compared with the
/// ledger.
pub(super) struct CachedAccount {
    pub history: AccountHistory,
    pub currency: Currency,
}

#[derive(Default)]
struct Generation {
    accounts: HashMap<String, CachedAccount>,
    bytes: usize,
}

impl Generation {
    fn take(&mut self, account_id: &str) -> Option<CachedAccount> {
        let known = self.accounts.remove(account_id)?;
        self.bytes = self.bytes.saturating_sub(bytes(&known));
        Some(known)
    }
}

#[derive(Default)]
pub(super) struct HistoryCache {
    young: Generation,
    old: Generation,
    bytes_max: usize,
}

impl HistoryCache {
    /// Bounds the memory of all histories together. The last one put in is always kept.
    pub fn limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Returns how many bytes of histories can be put in at once without dropping one of them.
    pub fn room(&self) -> usize {
        self.bytes_max / 2
    }

    /// Takes an account out. The caller puts it back with [`HistoryCache::put`].
    pub fn take(&mut self, account_id: &str) -> Option<CachedAccount> {
        self.young.take(account_id).or_else(|| self.old.take(account_id))
    }

    /// Returns an account, if it is cached.
    pub fn get(&self, account_id: &str) -> Option<&CachedAccount> {
        self.young.accounts.get(account_id).or_else(|| self.old.accounts.get(account_id))
    }

    /// Puts an account in. Drops other accounts if all together take too much memory.
    pub fn put(&mut self, account_id: &str, known: CachedAccount) {
        self.young.bytes += bytes(&known);
        self.young.accounts.insert(account_id.to_owned(), known);
        if self.young.bytes + self.old.bytes > self.bytes_max {
            self.old = std::mem::take(&mut self.young);
        }
    }

    pub fn clear(&mut self) {
        *self = Self { bytes_max: self.bytes_max, ..Self::default() };
    }
}

fn bytes(known: &CachedAccount) -> usize {
    known.history.bytes() + ACCOUNT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::risk::Ruleset;

    const ACCOUNTS_MAX: usize = 100;

    fn known(ruleset: &Ruleset) -> CachedAccount {
        let currency = Currency::parse("EUR").expect("known");
        CachedAccount { history: AccountHistory::new(ruleset), currency }
    }

    #[test]
    fn used_accounts_stay_and_unused_ones_are_dropped() {
        let ruleset = Ruleset::parse("[levels]\nmedium = 1\nhigh = 2\n").expect("valid");
        let history = || known(&ruleset);
        let mut cache = HistoryCache::default();
        cache.limit(ACCOUNTS_MAX * bytes(&history()));
        cache.put("used", history());
        for number in 0..10 * ACCOUNTS_MAX {
            cache.put(&number.to_string(), history());
            let used = cache.take("used").expect("still there");
            cache.put("used", used);
            let kept = cache.young.accounts.len() + cache.old.accounts.len();
            assert!(kept <= ACCOUNTS_MAX, "{kept}");
        }
        assert!(cache.take("0").is_none());
    }

    #[test]
    fn accounts_that_fit_are_never_dropped() {
        let ruleset = Ruleset::parse("[levels]\nmedium = 1\nhigh = 2\n").expect("valid");
        let history = || known(&ruleset);
        let mut cache = HistoryCache::default();
        cache.limit(ACCOUNTS_MAX * bytes(&history()));
        for round in 0..10 {
            for number in 0..ACCOUNTS_MAX {
                let account_id = number.to_string();
                let taken = cache.take(&account_id);
                assert!(taken.is_some() || round == 0, "{account_id} was dropped");
                cache.put(&account_id, taken.unwrap_or_else(history));
            }
        }
    }
}
