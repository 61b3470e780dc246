//! `ledger simulate`: sends realistic traffic to a running API and checks every answer.
//!
//! Guarantee: the latencies show every stall of the server. A latency counts from the moment at which the request was
//! due, not from the moment at which a connection was free to send it. With `--rate 0` each connection sends its next
//! request as soon as it has the answer, and a request is due when it is sent.
//!
//! Deliberately absent: traffic to existing accounts, whose balances and sequence numbers are unknown.

mod account_checks;
mod client;
mod counts;
mod draft;
mod labels;
mod pace;
mod random;
mod report;
mod schemes;
mod traffic;

use std::{cell::RefCell, path::PathBuf, process::ExitCode, rc::Rc, time::Duration};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::{
    sync::oneshot,
    task::{JoinSet, LocalSet},
    time::Instant,
};
use uuid::Uuid;

pub use self::report::{Percentiles, Report};
use self::{
    account_checks::AccountChecks,
    client::Client,
    counts::Counts,
    labels::Labels,
    pace::Pace,
    traffic::{Mix, Traffic},
};
use crate::runtime::{Context, OutputFormat, Stop, parse_interval, print_json, progress_bar};

/// Flags of `ledger simulate`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// URL of the API
    #[arg(long, env = "LEDGER_SIMULATE_URL", default_value = "http://127.0.0.1:8080", value_parser = base_url)]
    pub url: String,
    /// Transactions per second over all connections; 0 for as many as possible
    #[arg(long, env = "LEDGER_SIMULATE_RATE", default_value_t = 500)]
    pub rate: u32,
    /// Duration, such as 30s or 5m
    #[arg(long, env = "LEDGER_SIMULATE_DURATION", default_value = "10s", value_parser = parse_interval)]
    pub duration: Duration,
    /// Stop after this number of transactions, even before the duration ends
    #[arg(long, env = "LEDGER_SIMULATE_TRANSACTIONS", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub transactions: Option<u64>,
    /// Number of ordinary accounts; all are new
    #[arg(long, env = "LEDGER_SIMULATE_ACCOUNTS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub accounts: u32,
    /// Share of requests to one hot account, 0 to 1
    #[arg(long, env = "LEDGER_SIMULATE_HOT_SHARE", default_value_t = 0.1, value_parser = share)]
    pub hot_share: f64,
    /// Share of requests that are sent twice with the same key, 0 to 1
    #[arg(long, env = "LEDGER_SIMULATE_DUPLICATE_SHARE", default_value_t = 0.02, value_parser = share)]
    pub duplicate_share: f64,
    /// Share of requests that are steps of suspicious schemes, 0 to 1
    #[arg(long, env = "LEDGER_SIMULATE_SUSPICIOUS_SHARE", default_value_t = 0.02, value_parser = share)]
    pub suspicious_share: f64,
    /// Requests in parallel
    #[arg(long, env = "LEDGER_SIMULATE_CONNECTIONS", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// Seed of the traffic; by default each run has other traffic
    #[arg(long, env = "LEDGER_SIMULATE_SEED")]
    pub seed: Option<u64>,
    /// Write a CSV file with the planted scheme of each transaction
    #[arg(long, env = "LEDGER_SIMULATE_LABELS", value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// How to print the result
    #[arg(long, env = "LEDGER_SIMULATE_OUTPUT", value_enum, default_value_t)]
    pub output: OutputFormat,
}

fn base_url(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text)
        .ok()
        .filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    url.map(|_| text.to_owned()).ok_or_else(|| "must be like http://127.0.0.1:8080".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    (0.0..=1.0).contains(&number).then_some(number).ok_or_else(|| "must be between 0 and 1".into())
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The counts and latencies.
    pub report: Report,
    /// The ids of all acknowledged transactions, if they were requested.
    pub acknowledged: Vec<Uuid>,
}

/// Runs the command. The exit code is 1 if any answer was wrong or missing.
pub async fn run(context: Context, args: Args) -> anyhow::Result<ExitCode> {
    let Outcome { report, .. } = drive(&args, false, &context.stop).await?;
    match args.output {
        OutputFormat::Table => report.print_table()?,
        OutputFormat::Json => print_json(&report)?,
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Longer latencies count as this one: one day.
const LATENCY_MICROS_MAX: u64 = 86_400_000_000;
/// The number of exact decimal digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// The state that all connections share.
struct Run {
    client: Client,
    traffic: Traffic,
    account_checks: AccountChecks,
    counts: Counts,
    labels: Option<Labels>,
    latency_micros: RefCell<Histogram<u64>>,
    pace: Pace,
    stop: Stop,
}

impl Run {
    fn record_latency(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_micros.borrow_mut().saturating_record(micros);
    }
}

/// Sends the traffic and waits for all answers. With `keep_ids`, the outcome contains the id of every acknowledged
/// transaction. A requested stop ends the run early, and the outcome covers the requests until then. Dropping the
/// future ends the run too.
///
/// The run has one thread of its own. Many connections with little work each cost less on one thread than on several,
/// which would spend their time waking each other, and the server under test shares the machine.
pub async fn drive(args: &Args, keep_ids: bool, stop: &Stop) -> anyhow::Result<Outcome> {
    let stop = stop.child();
    let (args, its_stop) = (args.clone(), stop.clone());
    let (sender, outcome) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("simulate".into())
        .spawn(move || {
            // The receiver is gone if the future was dropped.
            let _ = sender.send(runtime.block_on(drive_on_this_thread(&args, keep_ids, &its_stop)));
        })
        .context("cannot start a thread")?;
    let _stop_if_dropped = StopIfDropped(stop);
    outcome.await.context("the simulation panicked")?
}

struct StopIfDropped(Stop);

impl Drop for StopIfDropped {
    fn drop(&mut self) {
        self.0.request();
    }
}

async fn drive_on_this_thread(args: &Args, keep_ids: bool, stop: &Stop) -> anyhow::Result<Outcome> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let mix = Mix {
        seed,
        accounts: args.accounts,
        hot_share: args.hot_share,
        duplicate_share: args.duplicate_share,
        suspicious_share: args.suspicious_share,
    };
    let run_name = Uuid::new_v4().simple().to_string();
    let traffic = Traffic::new(mix, format!("sim-{}", run_name.get(..10).unwrap_or_default()))?;
    let client = Client::new(&args.url, args.connections.into())?;
    client.check_reachable().await?;
    let run = Rc::new(Run {
        client,
        account_checks: AccountChecks::new(traffic.accounts()),
        traffic,
        counts: Counts::new(keep_ids),
        labels: args.labels.as_deref().map(Labels::create).transpose()?,
        latency_micros: RefCell::new(Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, LATENCY_DIGITS)?),
        pace: Pace::start(args.rate, args.duration, args.transactions)?,
        stop: stop.clone(),
    });
    let started = Instant::now();
    let (local, mut connections) = (LocalSet::new(), JoinSet::new());
    for _ in 0..args.connections {
        connections.spawn_local_on(connection(Rc::clone(&run)), &local);
    }
    local.run_until(show_progress(&run, args.duration, connections)).await?;
    let elapsed = started.elapsed();
    if let Some(labels) = &run.labels {
        labels.finish()?;
    }
    let is_interrupted = stop.is_requested();
    if run.pace.unsent() > 0 && !is_interrupted {
        run.counts.count_unsent(run.pace.unsent());
    }
    let gaps = run.account_checks.gaps();
    if gaps > 0 {
        run.counts.count_wrong(format!("{gaps} accounts have gaps in account_seq"));
    }
    let report = Report::new(&run.counts, &run.latency_micros.borrow(), elapsed, seed, is_interrupted);
    Ok(Outcome { report, acknowledged: run.counts.take_acknowledged() })
}

/// Waits for all connections and shows the progress.
async fn show_progress(run: &Run, duration: Duration, mut connections: JoinSet<()>) -> anyhow::Result<()> {
    const REFRESH_INTERVAL: Duration = Duration::from_millis(200);
    let length = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let bar = progress_bar(length, "{bar:20} {elapsed} of {wide_msg}");
    let started = Instant::now();
    let mut refresh = tokio::time::interval(REFRESH_INTERVAL);
    loop {
        tokio::select! {
            ended = connections.join_next() => match ended {
                Some(ended) => ended.context("a connection of the simulation panicked")?,
                None => break,
            },
            _ = refresh.tick() => {
                let elapsed = started.elapsed();
                let created = run.counts.created.get();
                let rate = created as f64 / elapsed.as_secs_f64().max(0.001);
                let p99 = run.latency_micros.borrow().value_at_quantile(0.99);
                bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).min(length));
                bar.set_message(format!(
                    "{}, {created} transactions, {rate:.0}/s, p99 {:.1} ms, {} retried, {} wrong",
                    humantime::format_duration(duration),
                    p99 as f64 / 1000.0,
                    run.counts.retried.get(),
                    run.counts.wrong.get(),
                ));
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Runs one connection: takes the next due request, sends it and checks the answers, until the end.
async fn connection(run: Rc<Run>) {
    loop {
        let due = tokio::select! {
            biased;
            () = run.stop.requested() => return,
            due = run.pace.next() => due,
        };
        let Some((i, due)) = due else { return };
        let request = run.traffic.request(i);
        if request.scheme.is_some() {
            run.counts.suspicious.increment();
        }
        let settled = run.client.settle(&request, &run.counts, &run.stop).await;
        match settled.first {
            Ok(acknowledged) => {
                run.counts.created.increment();
                run.record_latency(acknowledged.answered_at.saturating_duration_since(due));
                run.counts.acknowledge(acknowledged.id);
                if let Some(labels) = &run.labels {
                    labels.add(&request, acknowledged.id);
                }
                if let Err(problem) = run.account_checks.check(&request, &acknowledged) {
                    run.counts.count_wrong(problem);
                }
            }
            Err(failure) => {
                run.record_latency(due.elapsed());
                run.account_checks.note_unanswered(&request);
                run.counts.count_failure(failure);
            }
        }
        match settled.repeat {
            Some(Ok(())) => run.counts.replayed.increment(),
            Some(Err(failure)) => run.counts.count_failure(failure),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
