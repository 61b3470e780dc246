//! The text of `/metrics`: the text of the recorder, with two corrections that the recorder cannot make.
//!
//! - A gauge without a value ([`Measurement`](super::Measurement)) is left out.
//! - `process_cpu_seconds_total` is a counter with fractions. The recorder's own counters are whole numbers, so it is
//!   recorded as a gauge.

const CPU_AS_GAUGE: &str = "# TYPE process_cpu_seconds_total gauge";
const CPU_AS_COUNTER: &str = "# TYPE process_cpu_seconds_total counter";
const WITHOUT_VALUE: &str = " NaN";

/// Returns the text for the scraper.
pub(super) fn exposition(rendered: &str) -> String {
    let mut text = String::with_capacity(rendered.len());
    for line in rendered.lines().filter(|line| !line.ends_with(WITHOUT_VALUE)) {
        text.push_str(if line == CPU_AS_GAUGE { CPU_AS_COUNTER } else { line });
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::runtime::{Measurement, start_at_zero};

    #[test]
    fn a_gauge_is_reported_only_while_its_value_is_known() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let page = || exposition(&recorder.handle().render());
        metrics::with_local_recorder(&recorder, || {
            let lag = || Measurement::new(metrics::gauge!("lag", "partition" => "1"));
            let first = lag();
            assert!(!page().contains("lag{"), "{}", page());
            first.set(7.0);
            assert!(page().contains("lag{partition=\"1\"} 7\n"), "{}", page());
            first.forget();
            assert!(!page().contains("lag{"), "{}", page());
            first.set(0.0);
            drop(first);
            assert!(!page().contains("lag{"), "{}", page());
            lag().set(1.0);
            assert!(!page().contains("lag{"), "the new one was dropped too: {}", page());
        });
    }

    #[test]
    fn counters_start_at_zero_and_processor_time_is_a_counter_with_fractions() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            start_at_zero("failures_total", "reason", &["a", "b"]);
            metrics::gauge!("process_cpu_seconds_total").set(1.25);
        });
        let page = exposition(&recorder.handle().render());
        for line in [
            "failures_total{reason=\"a\"} 0",
            "failures_total{reason=\"b\"} 0",
            CPU_AS_COUNTER,
            "process_cpu_seconds_total 1.25",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}: {page}");
        }
    }
}
