//! Keeps the account histories of one partition in memory, so that events of recently used accounts need no query.
//!
//! The cache is bounded by bytes, not by accounts. When it is full, the account that was not used for the longest time is
//! dropped. Correctness never depends on the cache.

use lru::LruCache;

use super::memory_budget::HistoryShare;
use crate::{domain::Currency, risk::AccountHistory};

/// The memory that an account takes in addition to its history and its id: links, allocations and its place in the map.
const ENTRY_BYTES: usize = size_of::<Entry>() + 112;

/// The history and the currency of an account. The history ends with its last transaction that was compared with the
/// ledger.
pub(super) struct CachedAccount {
    pub history: AccountHistory,
    pub currency: Currency,
}

struct Entry {
    account: CachedAccount,
    bytes: usize,
}

pub(super) struct HistoryCache {
    accounts: LruCache<Box<str>, Entry>,
    bytes: usize,
    share: HistoryShare,
    /// The part of `bytes` that the gauge includes.
    reported: usize,
}

impl HistoryCache {
    /// Creates an empty cache. It keeps more than its share only if that is a single account.
    pub fn new(share: HistoryShare) -> Self {
        Self { accounts: LruCache::unbounded(), bytes: 0, share, reported: 0 }
    }

    /// Changes how much memory the histories may take.
    pub fn limit(&mut self, share: HistoryShare) {
        self.share = share;
    }

    /// Returns how many bytes of histories can be put in at once without dropping one of them.
    pub fn room(&self) -> usize {
        self.share.bytes_max() / 2
    }

    /// Returns an account, if it is cached.
    pub fn peek(&self, account_id: &str) -> Option<&CachedAccount> {
        self.accounts.peek(account_id).map(|entry| &entry.account)
    }

    /// Returns an account, if it is cached, and makes it the last that is dropped.
    pub fn touch(&mut self, account_id: &str) -> Option<&CachedAccount> {
        self.accounts.get(account_id).map(|entry| &entry.account)
    }

    /// Changes an account, if it is cached. Drops other accounts if all together then take too much memory.
    pub fn change<T>(&mut self, account_id: &str, change: impl FnOnce(&mut CachedAccount) -> T) -> Option<T> {
        let entry = self.accounts.get_mut(account_id)?;
        let changed = change(&mut entry.account);
        let before = std::mem::replace(&mut entry.bytes, bytes(account_id, &entry.account));
        self.bytes = self.bytes + entry.bytes - before;
        self.shrink();
        Some(changed)
    }

    /// Takes an account out of the cache.
    pub fn take(&mut self, account_id: &str) -> Option<CachedAccount> {
        let entry = self.accounts.pop(account_id)?;
        self.bytes -= entry.bytes;
        Some(entry.account)
    }

    /// Puts an account in. Drops other accounts if all together then take too much memory.
    pub fn put(&mut self, account_id: &str, account: CachedAccount) {
        let bytes = bytes(account_id, &account);
        let replaced = self.accounts.put(account_id.into(), Entry { account, bytes });
        self.bytes = self.bytes + bytes - replaced.map_or(0, |entry| entry.bytes);
        self.shrink();
    }

    /// Drops accounts until the others fit. The account that was used last always stays.
    pub fn shrink(&mut self) {
        while self.bytes > self.share.bytes_max()
            && self.accounts.len() > 1
            && let Some((_, entry)) = self.accounts.pop_lru()
        {
            self.bytes -= entry.bytes;
        }
    }

    pub fn clear(&mut self) {
        self.accounts.clear();
        self.bytes = 0;
    }

    /// Updates the gauge that shows the memory of all histories of the process.
    pub fn report(&mut self) {
        let gauge = metrics::gauge!("ledger_risk_history_bytes");
        gauge.increment(self.bytes as f64);
        gauge.decrement(self.reported as f64);
        self.reported = self.bytes;
    }
}

impl Drop for HistoryCache {
    fn drop(&mut self) {
        self.clear();
        self.report();
    }
}

fn bytes(account_id: &str, account: &CachedAccount) -> usize {
    account.history.bytes() + account_id.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::{super::memory_budget::MemoryBudget, *};
    use crate::risk::Ruleset;

    const ACCOUNTS_MAX: usize = 100;

    fn account(ruleset: &Ruleset) -> CachedAccount {
        let currency = Currency::parse("EUR").expect("known");
        CachedAccount { history: AccountHistory::new(ruleset), currency }
    }

    fn ruleset() -> Ruleset {
        Ruleset::parse("[levels]\nmedium = 1\nhigh = 2\n").expect("valid")
    }

    /// Returns the id of an account. All have the same length.
    fn id(number: usize) -> String {
        format!("{number:06}")
    }

    fn budget(ruleset: &Ruleset) -> MemoryBudget {
        MemoryBudget::new(ACCOUNTS_MAX * bytes(&id(0), &account(ruleset)))
    }

    #[test]
    fn the_account_that_was_not_used_for_the_longest_time_is_dropped() {
        let ruleset = ruleset();
        let mut cache = HistoryCache::new(budget(&ruleset).share());
        let used = id(0);
        cache.put(&used, account(&ruleset));
        for number in 1..10 * ACCOUNTS_MAX {
            cache.put(&id(number), account(&ruleset));
            assert!(cache.change(&used, |_| ()).is_some(), "the used account was dropped");
            assert_eq!(cache.accounts.len(), ACCOUNTS_MAX.min(number + 1));
            assert_eq!(cache.bytes, cache.accounts.iter().map(|(_, entry)| entry.bytes).sum::<usize>());
            let oldest = number.saturating_sub(ACCOUNTS_MAX - 2).max(1);
            assert!(cache.peek(&id(oldest)).is_some(), "{oldest} was dropped at {number}");
            assert!(oldest == 1 || cache.peek(&id(oldest - 1)).is_none(), "{} is kept", oldest - 1);
        }
    }

    #[test]
    fn partitions_share_the_memory_equally_and_one_that_is_alone_has_all() {
        let ruleset = ruleset();
        let budget = budget(&ruleset);
        let mut alone = HistoryCache::new(budget.share());
        let fill =
            |cache: &mut HistoryCache| (0..ACCOUNTS_MAX).for_each(|n| cache.put(&id(n), account(&ruleset)));
        fill(&mut alone);
        assert_eq!(alone.accounts.len(), ACCOUNTS_MAX);
        let mut other = HistoryCache::new(budget.share());
        fill(&mut other);
        assert_eq!(other.accounts.len(), ACCOUNTS_MAX / 2);
        alone.shrink();
        assert_eq!(alone.accounts.len(), ACCOUNTS_MAX / 2, "its share is smaller now");
        drop(alone);
        fill(&mut other);
        assert_eq!(other.accounts.len(), ACCOUNTS_MAX);
    }

    #[test]
    fn a_single_account_is_kept_even_if_it_is_too_large() {
        let ruleset = ruleset();
        let mut cache = HistoryCache::new(HistoryShare::default());
        cache.put(&id(0), account(&ruleset));
        cache.put(&id(1), account(&ruleset));
        assert!(cache.peek(&id(0)).is_none());
        assert!(cache.change(&id(1), |_| ()).is_some());
    }
}
