//! The wait between attempts and between polls: short at first, twice as long each time, up to a maximum.

use std::time::Duration;

use super::Stop;

/// A wait that doubles from `min` to `max` until it is reset. Each wait is random between half and all of it, so that
/// many instances do not retry at the same moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Returns a back-off whose first wait is `min`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// Resets the next wait to `min`, after a success or a poll that found something.
    pub fn reset(&mut self) {
        self.next = self.min;
    }

    /// Returns the time to wait now, and doubles the next one up to the maximum.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(self.max);
        wait.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Waits, or returns early if a stop is requested.
    pub async fn wait(&mut self, stop: &Stop) {
        let wait = self.next_wait();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.requested() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(50));
        let bounds = [10, 20, 40, 50, 50];
        for bound in bounds {
            let wait = backoff.next_wait().as_secs_f64() * 1000.0;
            assert!((f64::from(bound) / 2.0..=f64::from(bound)).contains(&wait), "{wait} for {bound}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(10));
    }
}
