//! Account histories in memory, for one partition: the accounts of the last few thousand events need no query.
//!
//! Bounded by bytes, not by accounts. Two generations stand in for a list of recent use: what is used moves to the
//! young one, and when both together are too much the old one is dropped whole. So accounts that fit are never
//! dropped, and nothing rests on a history being here.

use std::collections::HashMap;

use crate::{domain::Currency, risk::AccountHistory};

/// What an account takes beside its history: its name and its place in the map.
const ACCOUNT_BYTES: usize = 160;

/// What is known of an account: its rows up to one of them, which were all held against the ledger.
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
    /// From now on all histories together may take this much; at least the one put in last is kept.
    pub fn limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// How many bytes of histories can be put in at once without dropping one of them again.
    pub fn room(&self) -> usize {
        self.bytes_max / 2
    }

    /// Takes a history out, to be put back by [`HistoryCache::put`].
    pub fn take(&mut self, account_id: &str) -> Option<CachedAccount> {
        self.young.take(account_id).or_else(|| self.old.take(account_id))
    }

    /// What it knows of an account.
    pub fn get(&self, account_id: &str) -> Option<&CachedAccount> {
        self.young.accounts.get(account_id).or_else(|| self.old.accounts.get(account_id))
    }

    /// Puts a history in, and drops others if all together take too much.
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
    fn what_is_used_stays_and_the_rest_is_dropped() {
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
