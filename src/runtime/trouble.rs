//! Trouble that passes is logged once when it begins and once when it is over, however often the attempt between
//! fails: a night without a broker is two lines.

use std::{fmt::Display, time::Instant};

/// One thing that may be in trouble.
#[derive(Debug)]
pub struct Trouble {
    what: String,
    since: Option<Instant>,
}

impl Trouble {
    /// None yet. `what` is a sentence's subject: `publishing to transactions.v1/3`.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), since: None }
    }

    /// An attempt failed and will be made again.
    pub fn met(&mut self, error: &dyn Display) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::warn!("{} fails, trying again until it works: {error}", self.what);
        } else {
            tracing::debug!("{} still fails: {error}", self.what);
        }
    }

    /// An attempt succeeded.
    pub fn over(&mut self) {
        if let Some(since) = self.since.take() {
            tracing::info!("{} works again after {:.1} s", self.what, since.elapsed().as_secs_f64());
        }
    }
}
