//! The metrics of real roles, as Prometheus sees them: their form, and which of the shipped alerts fire when a role is cut
//! off from PostgreSQL or Kafka, or is frozen.
//!
//! Each role is scraped while it is healthy and twice during the fault. promtool evaluates the shipped rules on series that
//! are made from these scrapes: ten minutes of health, then half an hour of the fault, in which counters and ages
//! continue to change as between the two scrapes.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use nix::sys::signal::Signal;
use tokio::time::Instant;

use crate::support::{
    binary::{Binary, get},
    eventually_within, promtool,
    proxy::Proxy,
    system::System,
};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus/ledger.rules.yml");
const HEALTHY_MINUTES: usize = 10;
const FAULT_MINUTES: usize = 30;
/// The longest wait for a condition: longer than any time limit of a role.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// The time between the two scrapes of a fault: more than two measurements of the outbox.
const BETWEEN: Duration = Duration::from_secs(11);
/// The partitions of `transactions.v1` in a test system.
const PARTITIONS: usize = 6;
const ADMIN: (&str, &str) = ("LEDGER_ADMIN__LISTEN", "127.0.0.1:0");

/// Series with their values, from all targets.
type Scrape = BTreeMap<String, f64>;

/// A running role and the proxy in front of its database.
struct Target {
    job: &'static str,
    process: Binary,
    admin: String,
    database: Proxy,
}

impl Target {
    async fn start(system: &System, job: &'static str) -> Self {
        let config: tokio_postgres::Config = system.database.url.parse().expect("a URL");
        let port = config.get_ports()[0];
        let database = Proxy::start(([127, 0, 0, 1], port).into()).await;
        let url = system.database.url.replace(&format!("127.0.0.1:{port}"), &database.address.to_string());
        let environment = [
            ("LEDGER_DATABASE__URL", url.as_str()),
            ("LEDGER_DATABASE__CONNECT_TIMEOUT", "2s"),
            ("LEDGER_DATABASE__STATEMENT_TIMEOUT", "2s"),
            ("LEDGER_SERVE__LISTEN", "127.0.0.1:0"),
            ADMIN,
        ];
        let mut process = system.start(job, &environment);
        let admin = process.field("admin");
        Self { job, process, admin, database }
    }

    fn is_ready(&self) -> bool {
        matches!(get(&self.admin, "/readyz"), Some((200, _)))
    }

    /// Adds what Prometheus would store of a scrape. Buckets are left out, because no alert uses them.
    fn scrape(&self, into: &mut Scrape) {
        let page = get(&self.admin, "/metrics");
        let labels = format!("job=\"{}\",instance=\"{}\"", self.job, self.job);
        into.insert(format!("up{{{labels}}}"), if page.is_some() { 1.0 } else { 0.0 });
        let page = page.map(|(_, page)| page).unwrap_or_default();
        let samples = page.lines().filter(|line| line.starts_with("ledger_") && !line.contains("_bucket"));
        for sample in samples {
            let (series, value) = sample.rsplit_once(' ').expect("a sample");
            let series = match series.strip_suffix('}') {
                Some(open) => format!("{open},{labels}}}"),
                None => format!("{series}{{{labels}}}"),
            };
            into.insert(series, value.parse().expect("a number"));
        }
    }
}

/// Three scrapes of all targets, and the series that are made from them.
struct Story {
    healthy: Scrape,
    first: Scrape,
    second: Scrape,
    between: f64,
}

impl Story {
    /// Scrapes the targets twice during a fault.
    async fn of_fault(healthy: &Scrape, targets: &[Target]) -> Self {
        let started = Instant::now();
        let first = scrape(targets);
        tokio::time::sleep(BETWEEN).await;
        let second = scrape(targets);
        Self { healthy: healthy.clone(), first, second, between: started.elapsed().as_secs_f64() }
    }

    /// Returns the value after some minutes of the fault. None: the series has no sample.
    fn value_in_fault(&self, series: &str, minutes: usize) -> Option<f64> {
        let last = *self.second.get(series)?;
        let name = series.split('{').next().unwrap_or_default();
        let goes_on = ["_total", "_age_seconds", "_lag_seconds", "_lag_records"];
        if !goes_on.iter().any(|suffix| name.ends_with(suffix)) {
            return Some(last);
        }
        let slope = (last - self.first.get(series).unwrap_or(&last)) / self.between;
        Some(last + slope * 60.0 * f64::from(u32::try_from(minutes).expect("few")))
    }

    fn input_series(&self) -> String {
        let mut text = String::new();
        let names =
            self.healthy.keys().chain(self.second.keys().filter(|name| !self.healthy.contains_key(*name)));
        for series in names {
            let shown = |value: Option<f64>| value.map_or("_".to_owned(), |value| format!("{value}"));
            let healthy = std::iter::repeat_n(shown(self.healthy.get(series).copied()), HEALTHY_MINUTES);
            let fault = (0..FAULT_MINUTES).map(|minutes| shown(self.value_in_fault(series, minutes)));
            let values: Vec<String> = healthy.chain(fault).collect();
            writeln!(text, "      - {{series: '{series}', values: '{}'}}", values.join(" "))
                .expect("written");
        }
        text
    }

    /// Asserts that none of the shipped alerts fires in health, and exactly these fire in the end.
    fn fires(&self, what: &str, alerts: &[&str]) {
        let samples: Vec<String> = alerts
            .iter()
            .map(|alert| format!("          - {{labels: '{{alertname=\"{alert}\"}}', value: 1}}"))
            .collect();
        let expression = "group by (alertname) (ALERTS{alertstate=\"firing\"})";
        let test = format!(
            "rule_files: ['{RULES}']\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n{}    \
             promql_expr_test:\n      - {{expr: '{expression}', eval_time: {}m, exp_samples: []}}\n      - expr: \
             '{expression}'\n        eval_time: {}m\n        exp_samples:\n{}\n",
            self.input_series(),
            HEALTHY_MINUTES - 1,
            HEALTHY_MINUTES + FAULT_MINUTES - 1,
            samples.join("\n"),
        );
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("test.yml");
        std::fs::write(&file, &test).expect("written");
        let (is_right, output) = promtool::run(&["test", "rules", file.to_str().expect("UTF-8")], "");
        assert!(is_right, "{what}: {output}\n{test}");
    }
}

fn scrape(targets: &[Target]) -> Scrape {
    let mut all = Scrape::new();
    targets.iter().for_each(|target| target.scrape(&mut all));
    all
}

/// Waits until every role is ready, every lane and partition has its owner, and every value is measured. Returns that
/// scrape.
async fn healthy(targets: &[Target]) -> Scrape {
    eventually_within(WAIT_MAX, "every role is ready", async || targets.iter().all(Target::is_ready)).await;
    let of = |all: &Scrape, name: &str| -> Vec<f64> {
        all.iter().filter(|(series, _)| series.starts_with(name)).map(|(_, value)| *value).collect()
    };
    eventually_within(WAIT_MAX, "every value is measured", async || {
        let all = scrape(targets);
        let sum = |name: &str| of(&all, name).iter().sum::<f64>();
        let is_owned = (sum("ledger_leases_held") - sum("ledger_leases_shared")).abs() < 0.5;
        is_owned
            && of(&all, "ledger_consumer_lag_seconds").len() == PARTITIONS
            && !of(&all, "ledger_outbox_rows").is_empty()
    })
    .await;
    scrape(targets)
}

fn has(target: &Target, name: &str) -> bool {
    let mut all = Scrape::new();
    target.scrape(&mut all);
    all.keys().any(|series| series.starts_with(name))
}

/// A partition that was given up must not report a lag of 0, and a relay without PostgreSQL must not report the last size
/// of the outbox: the role would look well.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_cut_off_or_frozen_fires_the_right_alerts_and_no_others() {
    let Some(system) = System::on_kafka().await else { return };
    let mut targets = Vec::new();
    for job in ["serve", "relay", "consume-risk"] {
        targets.push(Target::start(&system, job).await);
    }
    let [_, relay, consumer] = &targets[..] else { panic!("three roles") };
    system.post(0, 60, 20, |_| None).await;
    let well = healthy(&targets).await;

    consumer.database.hold(true);
    eventually_within(WAIT_MAX, "the consumer reports no lag", async || {
        !has(consumer, "ledger_consumer_lag_")
    })
    .await;
    system.post(60, 60, 20, |_| None).await;
    let story = Story::of_fault(&well, &targets).await;
    story.fires("the consumer has no PostgreSQL", &["LedgerNotReady", "LedgerWorkUnowned"]);
    consumer.database.heal();
    let well = healthy(&targets).await;

    relay.database.hold(true);
    eventually_within(WAIT_MAX, "the relay reports no outbox", async || !has(relay, "ledger_outbox_")).await;
    let story = Story::of_fault(&well, &targets).await;
    let alerts = ["LedgerMeasurementMissing", "LedgerNotReady", "LedgerWorkUnowned"];
    story.fires("the relay has no PostgreSQL", &alerts);
    relay.database.heal();
    let well = healthy(&targets).await;

    system.kafka().proxy.hold(true);
    system.post(120, 60, 20, |_| None).await;
    eventually_within(WAIT_MAX, "neither can work", async || {
        !has(consumer, "ledger_consumer_lag_") && !consumer.is_ready() && !relay.is_ready()
    })
    .await;
    let story = Story::of_fault(&well, &targets).await;
    story.fires("no Kafka", &["LedgerMeasurementMissing", "LedgerNotReady", "LedgerOutboxOld"]);
    system.kafka().proxy.heal();
    let well = healthy(&targets).await;

    for frozen in [relay, consumer] {
        frozen.process.signal(Signal::SIGSTOP);
        eventually_within(WAIT_MAX, "frozen", async || frozen.process.is_frozen()).await;
        let story = Story::of_fault(&well, &targets).await;
        story.fires("a frozen role", &["LedgerInstanceDown", "LedgerRoleMissing"]);
        frozen.process.signal(Signal::SIGCONT);
        healthy(&targets).await;
    }
    system.is_whole().await;
}

/// A database that fails while the owner keeps its lease: the lag is measured from the broker, and its age too.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_write_fires_although_three_records_wait() {
    let Some(system) = System::on_kafka().await else { return };
    let client = system.database.client().await;
    let targets = [
        Target::start(&system, "serve").await,
        Target::start(&system, "relay").await,
        Target::start(&system, "consume-risk").await,
    ];
    system.post(0, 60, 20, |_| None).await;
    let well = healthy(&targets).await;
    client.batch_execute("ALTER TABLE risk_assessments RENAME TO hidden").await.expect("renamed");
    system.post(60, 3, 3, |_| None).await;
    eventually_within(WAIT_MAX, "the records wait", async || {
        let lag =
            |(name, value): (&String, &f64)| name.starts_with("ledger_consumer_lag_seconds") && *value > 1.0;
        scrape(&targets).iter().any(lag)
    })
    .await;
    let story = Story::of_fault(&well, &targets).await;
    story.fires("no assessments can be written", &["LedgerNotReady", "LedgerRiskBehind"]);
    client.batch_execute("ALTER TABLE hidden RENAME TO risk_assessments").await.expect("renamed");
    healthy(&targets).await;
    system.is_whole().await;
}

/// Every metric has a help text, and processor time has fractions.
#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_each_role_have_the_form_that_promtool_wants() {
    let Some(system) = System::on_kafka().await else { return };
    let listen = ("LEDGER_SERVE__LISTEN", "127.0.0.1:0");
    let mut pages = String::new();
    for job in ["serve", "relay", "consume-risk"] {
        let mut role = system.start(job, &[ADMIN, listen]);
        let admin = role.field("admin");
        role.answers(&admin, "/readyz");
        pages += &checked_page(job, &admin);
    }
    let aggregate = [("LEDGER_AGGREGATE_EVERY", "1s"), ADMIN];
    let mut role = system.start("aggregate", &aggregate);
    let admin = role.field("admin");
    role.answers(&admin, "/readyz");
    pages += &checked_page("aggregate", &admin);
    for sample in [
        "ledger_dead_letters_total{reason=\"record_invalid\"} 0",
        "ledger_dead_letters_total{reason=\"process_ended\"} 0",
        "ledger_relay_errors_total{reason=\"refused\"} 0",
        "ledger_relay_published_total{topic=\"risk-assessments.v1\"} 0",
        "ledger_consumer_events_total{outcome=\"dead_lettered\"} 0",
        "ledger_consumer_sequence_gaps_total 0",
        "ledger_risk_assessments_total{level=\"high\"} 0",
        "ledger_risk_rules_reloads_total{outcome=\"refused\"} 0",
        "ledger_http_requests_total{method=\"POST\",route=\"/transactions\",status=\"503\"} 0",
        "ledger_transactions_total{outcome=\"refused\"} 0",
        "ledger_writer_queue_depth{writer=\"0\"} 0",
    ] {
        assert!(pages.lines().any(|line| line == sample), "{sample} is missing: {pages}");
    }
}

/// Returns the metrics of a role. Fails if promtool finds a fault, or a metric has no help.
fn checked_page(job: &str, admin: &str) -> String {
    let (_, page) = get(admin, "/metrics").expect("metrics");
    let (is_right, output) = promtool::run(&["check", "metrics"], &page);
    assert!(is_right && output.is_empty(), "{job}: {output}");
    let names = |prefix: &str| -> Vec<String> {
        let lines = page.lines().filter_map(|line| line.strip_prefix(prefix));
        let mut names: Vec<String> =
            lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names("# HELP "), names("# TYPE "), "{job}");
    assert!(page.contains("# TYPE process_cpu_seconds_total counter"), "{job}: {page}");
    let cpu = page.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
    assert!(cpu.is_some_and(|cpu| cpu.contains('.')), "{job}: {cpu:?}");
    assert!(page.contains(&format!("role=\"{job}\"")) && page.contains("ledger_ready 1"), "{job}: {page}");
    page
}
