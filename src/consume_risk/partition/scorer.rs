//! Scores the records of one partition with the rules in use and the account histories in memory.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::super::{
    answer_timeout::answered_within,
    assess::{self, Assessed, FailingRule, LedgerLookup},
    cache::HistoryCache,
    isolation::ScoringIsolation,
    memory_budget::HistoryShare,
    reader::DecodedRecord,
};
use crate::{repository::Connection, risk::Ruleset, runtime::DatabaseClock};

pub(super) struct Scorer {
    rules: watch::Receiver<Arc<Ruleset>>,
    cache: HistoryCache,
    /// The version of the rules that the cached histories were built for.
    cached_for: Option<Arc<str>>,
    /// The failing rules of that version that are in the log.
    logged_rules: BTreeSet<String>,
    answer_timeout: Duration,
    clock: DatabaseClock,
}

impl Scorer {
    /// Creates a scorer whose account histories take at most this share of the memory.
    pub fn new(
        rules: watch::Receiver<Arc<Ruleset>>,
        share: HistoryShare,
        answer_timeout: Duration,
        clock: DatabaseClock,
    ) -> Self {
        Self {
            rules,
            cache: HistoryCache::new(share),
            cached_for: None,
            logged_rules: BTreeSet::new(),
            answer_timeout,
            clock,
        }
    }

    /// Changes how much memory histories may take.
    pub fn limit(&mut self, share: HistoryShare) {
        self.cache.limit(share);
    }

    /// Drops histories that no longer fit, because the process owns more partitions now.
    pub fn shrink(&mut self) {
        self.cache.shrink();
        self.cache.report();
    }

    /// Assesses records from the front. Shares `isolation` while it scores, but not while it reads from the database.
    /// None: the caller has isolated the records already.
    pub async fn assess(
        &mut self,
        connection: &mut Connection,
        records: &[DecodedRecord],
        lookup: LedgerLookup,
        isolation: Option<&ScoringIsolation>,
    ) -> anyhow::Result<Assessed> {
        let ruleset = Arc::clone(&self.rules.borrow());
        let version = ruleset.version();
        if self.cached_for.as_ref() != Some(&version) {
            self.cache.clear();
            self.cached_for = Some(version);
            self.logged_rules.clear();
        }
        let planning = assess::plan(connection, &ruleset, &mut self.cache, records, lookup);
        let plan = answered_within(self.answer_timeout, planning).await?;
        let _shared = match isolation {
            Some(isolation) => Some(isolation.share().await),
            None => None,
        };
        let assessed = assess::score(&ruleset, &mut self.cache, plan, self.clock.now()).await?;
        self.cache.report();
        self.log_failing_rules(&assessed);
        // A step without progress would be repeated at once, without end.
        let has_progress = assessed.handled > 0 || assessed.fault.is_some();
        anyhow::ensure!(has_progress, "{} records gave neither a result nor a reason", records.len());
        Ok(assessed)
    }

    /// Logs the first error of each rule, once for each version of the rules.
    fn log_failing_rules(&mut self, assessed: &Assessed) {
        for (rule, FailingRule { mode, error, .. }) in &assessed.failing_rules {
            if self.logged_rules.insert(rule.clone()) {
                tracing::warn!(rule, mode, %error, ruleset = %assessed.ruleset, "a rule fails; it counts as not fired");
            }
        }
    }

    /// Drops all histories.
    pub fn forget(&mut self) {
        self.cache.clear();
    }
}
