//! The labels in docs/metrics.md, compared with the series of a running platform. `scripts/check_metrics.py` compares the
//! queries of the dashboard and the alerts with the same page, so a label that no series has is found there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    process::Command,
    time::Duration,
};

use crate::support::{
    binary::{Binary, get},
    eventually_within,
};

/// `ledger dev` builds facts once a minute.
const WAIT_MAX: Duration = Duration::from_secs(180);

/// Metrics without a series here: they need Kafka, a failure, or hours.
const ABSENT: [&str; 5] = [
    "ledger_broker_records_removed_total",
    "ledger_broker_throttle_seconds",
    "ledger_consumer_errors_total",
    "ledger_relay_errors_total",
    "ledger_transaction_retries_total",
];

/// The labels of a metric with their listed values. A label whose values are not listed has none.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// Reads the column of labels: a word before a colon is a label, as is each word before the first colon.
fn labels_of(cell: &str) -> Labels {
    let mut labels = Labels::new();
    let mut last: Option<String> = None;
    let parts: Vec<&str> = cell.split('`').skip(1).collect();
    for pair in parts.chunks_exact(2) {
        let (word, after) = (pair[0].to_owned(), pair[1]);
        match &last {
            Some(label) if !after.starts_with(':') => {
                labels.entry(label.clone()).or_default().insert(word);
            }
            _ => {
                labels.entry(word.clone()).or_default();
                last = after.starts_with(':').then_some(word);
            }
        }
    }
    // A list that ends with … is not complete.
    if cell.contains('…') {
        labels.into_keys().map(|label| (label, BTreeSet::new())).collect()
    } else {
        labels
    }
}

fn documented() -> BTreeMap<String, Labels> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).expect("the page");
    page.lines()
        .filter(|line| line.starts_with("| `ledger_"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            (cells[1].trim_matches('`').to_owned(), labels_of(cells[3]))
        })
        .collect()
}

/// Returns the metric and the labels of each sample of the product. A bucket's limit is not a label of the metric.
fn series(page: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let samples = page.lines().filter(|line| line.starts_with("ledger_"));
    samples
        .map(|line| {
            let (name, labels) =
                line.rsplit_once(' ').expect("a value").0.split_once('{').unwrap_or((line, ""));
            let name = name.split(' ').next().unwrap_or_default();
            let labels = labels.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once("=\""));
            let labels =
                labels.map(|(label, value)| (label.to_owned(), value.trim_end_matches('"').to_owned()));
            (name.to_owned(), labels.filter(|(label, _)| label != "le").collect())
        })
        .collect()
}

fn metric<'a>(name: &'a str, documented: &BTreeMap<String, Labels>) -> &'a str {
    if documented.contains_key(name) {
        return name;
    }
    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// Posts one transaction with the printed command.
fn post(dev: &mut Binary) {
    let line = dev.line_with("curl -i");
    let posted = Command::new("sh").args(["-c", &format!("{line} --silent")]).output().expect("sh");
    assert!(posted.stdout.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&posted.stdout));
}

/// Seen to fail when the page named the label `result` in place of `outcome`, and when it did not list `replayed`.
#[tokio::test]
async fn the_documented_labels_are_those_of_the_series() {
    let documented = documented();
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).expect("mode");
    let data = folder.path().join("data");
    let listen = "127.0.0.1:0";
    let flags =
        ["dev", "--listen", listen, "--admin-listen", listen, "--data-dir", data.to_str().expect("UTF-8")];
    let mut dev = Binary::start(&flags, &[]);
    post(&mut dev);
    let admin = dev.line_with("/metrics").split("http://").nth(1).expect("a URL").to_owned();
    let admin = admin.trim_end_matches("/metrics");
    let page = || get(admin, "/metrics").map(|(_, page)| page).unwrap_or_default();
    let missing = |page: &str| -> Vec<String> {
        let found: BTreeSet<String> =
            series(page).iter().map(|(name, _)| metric(name, &documented).to_owned()).collect();
        let wanted = documented.keys().filter(|name| !ABSENT.contains(&name.as_str()));
        wanted.filter(|name| !found.contains(*name)).cloned().collect()
    };
    eventually_within(WAIT_MAX, "every documented metric", async || {
        let missing = missing(&page());
        if !missing.is_empty() {
            println!("missing: {missing:?}");
        }
        missing.is_empty()
    })
    .await;
    for (name, labels) in series(&page()) {
        let wanted =
            documented.get(metric(&name, &documented)).unwrap_or_else(|| panic!("{name} is not documented"));
        // The page says of `group` that only consume-risk has it.
        let is_optional = |label: &&String| *label == "group" && name.starts_with("ledger_leases_");
        for label in wanted.keys().filter(|label| !is_optional(label)) {
            assert!(labels.contains_key(label), "a series of {name} has no label {label}: {labels:?}");
        }
        for (label, value) in &labels {
            let values =
                wanted.get(label).unwrap_or_else(|| panic!("{name}: the label {label} is not documented"));
            let is_listed = values.is_empty() || values.contains(value);
            assert!(is_listed, "{name}: the value {value} of {label} is not documented");
        }
    }
    dev.stop();
}
