//! Decides when each request is due.

use std::{cell::Cell, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{sync::Semaphore, time::Instant};

/// A due request is still sent this long after the end of the run, so that a slow server is measured in full and a dead
/// server cannot hold the run for ever.
const LATE_MAX: Duration = Duration::from_secs(30);

/// Hands out the requests of a run, each with the moment at which it is due.
pub(super) struct Pace {
    next: Cell<u64>,
    started: Instant,
    ends: Instant,
    transactions_max: u64,
    /// The number of requests that will be due; zero without a rate.
    due_total: u64,
    /// Seconds between two requests; None for as fast as possible.
    interval: Option<f64>,
    /// One permit for each due request, and many at the end.
    due: Arc<Semaphore>,
}

impl Pace {
    /// Starts the clock. With a rate, a thread of its own gives out the permits, because the runtime's timer is only
    /// exact to a millisecond.
    pub(super) fn start(
        rate: u32,
        duration: Duration,
        transactions_max: Option<u64>,
    ) -> anyhow::Result<Self> {
        let started = Instant::now();
        let transactions_max = transactions_max.unwrap_or(u64::MAX);
        let due = Arc::new(Semaphore::new(0));
        let interval = (rate > 0).then(|| 1.0 / f64::from(rate));
        if let Some(interval) = interval {
            let permits = Arc::clone(&due);
            std::thread::Builder::new()
                .name("pace".into())
                .spawn(move || {
                    give_permits(&permits, started.into_std(), duration, interval, transactions_max)
                })
                .context("cannot start a thread")?;
        }
        let due_total = (duration.as_nanos() * u128::from(rate)).div_ceil(1_000_000_000);
        let due_total = u64::try_from(due_total).unwrap_or(u64::MAX).min(transactions_max);
        let ends = started + duration;
        Ok(Self { next: Cell::new(0), started, ends, transactions_max, due_total, interval, due })
    }

    /// Waits for the next due request and returns its number and the moment at which it was due. Returns None at the
    /// end.
    pub(super) async fn next(&self) -> Option<(u64, Instant)> {
        if self.interval.is_some() {
            self.due.acquire().await.ok()?.forget();
        }
        if Instant::now() >= self.ends + LATE_MAX {
            return None;
        }
        let i = self.next.replace(self.next.get() + 1);
        let due = match self.interval {
            Some(interval) => self.started + Duration::from_secs_f64(interval * i as f64),
            None => Instant::now(),
        };
        (due < self.ends && i < self.transactions_max).then_some((i, due))
    }

    /// Returns the number of requests that were due and never handed out. Valid after the end.
    pub(super) fn unsent(&self) -> u64 {
        self.due_total.saturating_sub(self.next.get())
    }
}

/// Gives a permit whenever a request is due. Ends with the duration or with the last of `count` permits, and then gives
/// enough permits for all requests that are still due and for every connection to notice the end.
fn give_permits(
    permits: &Semaphore,
    started: std::time::Instant,
    duration: Duration,
    interval: f64,
    count: u64,
) {
    const PERMITS_TO_END: usize = 1 << 20;
    let mut given = 0_u64;
    loop {
        let elapsed = started.elapsed();
        if elapsed >= duration || given >= count {
            permits.add_permits(PERMITS_TO_END);
            return;
        }
        while interval * (given as f64) <= elapsed.as_secs_f64() {
            permits.add_permits(1);
            given += 1;
        }
        let next = Duration::from_secs_f64(interval * given as f64);
        std::thread::park_timeout(next.saturating_sub(elapsed).min(duration.saturating_sub(elapsed)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail with this planted bug: the default rate for zero, which gives 5,000 requests in ten seconds.
    #[tokio::test]
    async fn without_a_rate_each_request_is_due_when_it_is_asked_for() {
        let pace = Pace::start(0, Duration::from_secs(10), None).expect("pace");
        for number in 0..10_000 {
            let asked = Instant::now();
            let (i, due) = pace.next().await.expect("the run goes on");
            assert!(i == number && due >= asked);
        }
    }

    #[tokio::test]
    async fn the_latency_of_a_late_request_counts_from_the_moment_it_was_due() {
        // Ten requests are due in a second, and the only connection needs 200 ms for each, so the last ones are sent long
        // after they were due. Counted from the sending, all latencies would be 200 ms.
        let pace = Pace::start(10, Duration::from_secs(1), None).expect("pace");
        let mut late = Vec::new();
        while let Some((_, due)) = pace.next().await {
            tokio::time::sleep(Duration::from_millis(200)).await;
            late.push(due.elapsed());
        }
        assert_eq!(late.len(), 10);
        assert!(late[9] > Duration::from_millis(900), "{late:?}");
    }

    #[tokio::test]
    async fn requests_that_were_due_and_never_sent_are_counted() {
        let started = Pace::start(1000, Duration::from_millis(20), None).expect("pace");
        assert_eq!((started.due_total, started.unsent()), (20, 20));
        let long_ago = Instant::now().checked_sub(LATE_MAX).expect("the machine is up");
        let pace = Pace { ends: long_ago, ..started };
        assert!(pace.next().await.is_none());
        assert_eq!(pace.unsent(), 20);
    }
}
