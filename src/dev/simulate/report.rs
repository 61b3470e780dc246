//! The result of a run, for people and for programs.

use std::{io, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::counts::Counts;
use crate::runtime::{print_text, table};

/// The counts and latencies of a run. In a successful run, `wrong` and `unanswered` are zero.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// New transactions that were acknowledged.
    pub created: u64,
    /// Requests that were repeated on purpose and got the first answer again.
    pub replayed: u64,
    /// Requests that were steps of suspicious schemes.
    pub suspicious: u64,
    /// HTTP requests, each attempt.
    pub requests: u64,
    /// Attempts after a 503, a 429, a 408 or a lost connection.
    pub retried: u64,
    /// Requests that were given up without an answer.
    pub unanswered: u64,
    /// Answers that the API must not give.
    pub wrong: u64,
    /// The time from the first request to the last answer.
    pub elapsed_seconds: f64,
    /// New transactions per second.
    pub transactions_per_second: f64,
    /// The time from the moment a request was due to its answer.
    pub latency_ms: Percentiles,
    /// Whether a stop was requested before the end.
    pub interrupted: bool,
    /// The seed, which gives the same traffic again.
    pub seed: u64,
    /// The first problems.
    pub problems: Vec<String>,
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the names are the meaning")]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

impl Report {
    pub(super) fn new(
        counts: &Counts,
        latency_micros: &Histogram<u64>,
        elapsed: Duration,
        seed: u64,
        interrupted: bool,
    ) -> Self {
        let elapsed_seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let created = counts.created.get();
        let percentile = |quantile| milliseconds(latency_micros.value_at_quantile(quantile));
        Self {
            created,
            replayed: counts.replayed.get(),
            suspicious: counts.suspicious.get(),
            requests: counts.sent.get(),
            retried: counts.retried.get(),
            unanswered: counts.unanswered.get(),
            wrong: counts.wrong.get(),
            elapsed_seconds,
            transactions_per_second: created as f64 / elapsed_seconds,
            latency_ms: Percentiles {
                p50: percentile(0.5),
                p90: percentile(0.9),
                p99: percentile(0.99),
                p99_9: percentile(0.999),
                max: milliseconds(latency_micros.max()),
            },
            interrupted,
            seed,
            problems: counts.examples(),
        }
    }

    /// Returns whether every request got a correct answer.
    pub fn is_clean(&self) -> bool {
        self.wrong == 0 && self.unanswered == 0
    }

    /// Prints the report as a table.
    pub fn print_table(&self) -> io::Result<()> {
        let latency = &self.latency_ms;
        let mut out = table(["figure", "value"]);
        for (name, value) in [
            ("transactions created", self.created.to_string()),
            ("duplicates replayed", self.replayed.to_string()),
            ("in suspicious schemes", self.suspicious.to_string()),
            ("requests, each attempt", self.requests.to_string()),
            ("retried", self.retried.to_string()),
            ("unanswered", self.unanswered.to_string()),
            ("wrong answers", self.wrong.to_string()),
            ("seconds", format!("{:.1}", self.elapsed_seconds)),
            ("transactions/s", format!("{:.0}", self.transactions_per_second)),
            ("latency p50, ms", format!("{:.2}", latency.p50)),
            ("latency p90, ms", format!("{:.2}", latency.p90)),
            ("latency p99, ms", format!("{:.2}", latency.p99)),
            ("latency p99.9, ms", format!("{:.2}", latency.p99_9)),
            ("latency max, ms", format!("{:.2}", latency.max)),
        ] {
            out.add_row([name, &value]);
        }
        print_text(out)?;
        if self.interrupted {
            eprintln!("interrupted: the counts cover the requests until then");
        }
        self.print_problems();
        Ok(())
    }

    /// Prints the problems on stderr.
    pub fn print_problems(&self) {
        for problem in &self.problems {
            eprintln!("problem: {problem}");
        }
    }
}

fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1000.0
}
