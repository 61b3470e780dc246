//! Gauges that are reported only while their value is known, and counters that start at 0.
//!
//! Guarantees: a value that cannot be measured now is not on `/metrics`, so that no old value looks like a good one. An
//! alert notices that it is missing.

use metrics::Gauge;

/// A gauge without a value, until [`Measurement::set`] is called and after it is dropped. Only
/// [`exposition`](super::exposition) knows about the marker, and leaves the gauge out.
pub struct Measurement(Gauge);

impl Measurement {
    /// Creates it without a value.
    pub fn new(gauge: Gauge) -> Self {
        let measurement = Self(gauge);
        measurement.forget();
        measurement
    }

    /// Reports a value that was just measured.
    pub fn set(&self, value: f64) {
        self.0.set(value);
    }

    /// Reports no value until the next measurement.
    pub fn forget(&self) {
        self.0.set(f64::NAN);
    }
}

impl Drop for Measurement {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Returns a count as the value of a metric.
pub fn as_value(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Reports a counter as 0 for each of these values of its label. `increase()` does not see the first value of a series,
/// so a counter that begins with its first failure would hide that failure.
pub fn start_at_zero(counter: &'static str, label: &'static str, values: &[&'static str]) {
    for value in values {
        metrics::counter!(counter, label => *value).increment(0);
    }
}
