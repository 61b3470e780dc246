//! Trouble that passes is logged once when it begins and once when it is over, however often the attempt between
//! fails: a night without a broker is two lines. What turns out to have another cause than the first one is told too,
//! within a bound: a silence that is a refused password in truth.

use std::{fmt::Display, time::Instant};

/// Causes that are told of one trouble.
const CAUSES_MAX: usize = 4;

/// One thing that may be in trouble.
#[derive(Debug)]
pub struct Trouble {
    what: String,
    since: Option<Instant>,
    /// Since then.
    told: Vec<String>,
}

impl Trouble {
    /// None yet. `what` is a sentence's subject: `publishing to transactions.v1/3`.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), since: None, told: Vec::new() }
    }

    /// An attempt failed and will be made again.
    pub fn met(&mut self, error: &dyn Display) {
        let cause = error.to_string();
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::warn!("{} fails, trying again until it works: {cause}", self.what);
        } else if self.is_new(&cause) {
            tracing::warn!("{} still fails, now for another reason: {cause}", self.what);
        } else {
            tracing::debug!("{} still fails: {cause}", self.what);
            return;
        }
        self.told.push(cause);
    }

    fn is_new(&self, cause: &String) -> bool {
        self.told.len() < CAUSES_MAX && !self.told.contains(cause)
    }

    /// An attempt succeeded.
    pub fn over(&mut self) {
        self.told.clear();
        if let Some(since) = self.since.take() {
            tracing::info!("{} works again after {:.1} s", self.what, since.elapsed().as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_once_and_so_many_at_most() {
        let mut trouble = Trouble::new("trying");
        for cause in ["silent", "silent", "refused", "silent", "refused"] {
            trouble.met(&cause);
        }
        assert_eq!(trouble.told, ["silent", "refused"]);
        for number in 0..100 {
            trouble.met(&number);
        }
        assert_eq!(trouble.told.len(), CAUSES_MAX);
        trouble.over();
        assert!(trouble.is_new(&"silent".to_owned()) && trouble.since.is_none());
    }
}
