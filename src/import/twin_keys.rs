//! Numbers equal rows, whose keys are hashes of their content and would be the same.
//!
//! Two equal rows of one day are two transactions. Their number among the equal rows of the day is part of the key, so a
//! later file that overlaps this one gives the same keys, and its rows are replayed.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use anyhow::{Context as _, ensure};
use chrono::NaiveDate;

use crate::domain::{IdempotencyKey, Posting};

/// Keys that are remembered: all of the file, or those of one day if the rows are sorted by time.
const KEYS_MAX: usize = 1_800_000;

pub(super) struct TwinKeys {
    hasher: RandomState,
    counts: HashMap<u64, u32>,
    /// Whether the rows are in the order of time, so that no later row can equal one of an earlier day.
    is_by_time: bool,
    day: Option<NaiveDate>,
}

impl TwinKeys {
    pub(super) fn new(is_by_time: bool) -> Self {
        Self { hasher: RandomState::new(), counts: HashMap::new(), is_by_time, day: None }
    }

    /// Appends the number to the key of every equal row after the first one.
    pub(super) fn number(&mut self, posting: &mut Posting) -> anyhow::Result<()> {
        let day = posting.created_at.map(|at| at.date_naive());
        if self.is_by_time && day != self.day {
            self.counts.clear();
            self.day = day;
        }
        let key = self.hasher.hash_one((posting.account_id.as_str(), posting.idempotency_key.as_str()));
        let count = self.counts.entry(key).or_default();
        *count = count.saturating_add(1);
        if *count > 1 {
            let numbered = format!("{}-{count}", posting.idempotency_key.as_str());
            posting.idempotency_key =
                IdempotencyKey::parse(&numbered).ok().context("a derived key is too long")?;
        }
        ensure!(
            self.counts.len() <= KEYS_MAX,
            "has more than {KEYS_MAX} rows whose keys are derived; name a column that identifies rows \
             (`idempotency_key` in the map), use order = \"by-time\", or import the file in parts that end with a day"
        );
        Ok(())
    }
}
