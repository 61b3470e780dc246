//! `ledger demo`: sends transactions through every role and then checks all results against each other.
//!
//! Guarantees: exit code 0 means that every check passed; no process and no file is left behind.

use std::{io, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Parser;
use tokio::time::{Instant, sleep};

use super::{
    cluster::ClusterOptions,
    platform::{CONNECTIONS_MAX, Platform},
    private_overrides, simulate,
};
use crate::{
    aggregate,
    config::Overrides,
    ops::verify,
    repository::{
        self, Connection,
        overview::{self, HighestScored, Progress},
    },
    runtime::{Context, OutputFormat, parse_interval, print_text, table},
};

/// The longest wait until all events are published and all transactions are scored.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
const SETTLE_INTERVAL: Duration = Duration::from_millis(50);
const HIGHEST_SCORED_SHOWN: i32 = 3;
const CONNECTIONS: u16 = 64;

/// Flags of `ledger demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Number of transactions to post
    #[arg(long, env = "LEDGER_DEMO_TRANSACTIONS", value_name = "COUNT", default_value_t = 5000,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub transactions: u64,
    /// Longest time to post, even if fewer transactions were posted
    #[arg(long, env = "LEDGER_DEMO_DURATION", default_value = "10s", value_parser = parse_interval)]
    pub duration: Duration,
    /// Seed of the traffic; by default each run has other traffic
    #[arg(long, env = "LEDGER_DEMO_SEED")]
    pub seed: Option<u64>,
    /// Directory of PostgreSQL's programs; by default installed programs, or portable ones downloaded once
    #[arg(long, env = "LEDGER_DEMO_POSTGRES_BIN", value_name = "DIR")]
    pub postgres_bin: Option<std::path::PathBuf>,
}

impl Args {
    /// Returns the configuration of a demo: any free port, no admin listener, and only warnings of the roles.
    pub fn overrides(&self) -> Overrides {
        let mut overrides = private_overrides();
        overrides.push(("serve.listen".into(), "127.0.0.1:0".into()));
        overrides.push(("admin.listen".into(), "off".into()));
        if std::env::var_os("LEDGER_LOG__FILTER").is_none() {
            overrides.push(("log.filter".into(), "warn".into()));
        }
        overrides
    }
}

/// Runs the demo. Ctrl-C ends it early and cleanly.
pub async fn run(context: Context, args: Args) -> anyhow::Result<ExitCode> {
    print_text(
        "Transactions pass through every role, and then all results are checked against each other.\n\n  0.0 s  starting a private PostgreSQL and the roles …",
    )?;
    let timeline = Timeline::start();
    let directory =
        tempfile::Builder::new().prefix("ledger-demo-").tempdir().context("no temporary directory")?;
    // The cluster removes the directory after its server has ended. A guard would remove it too early.
    let directory = directory.keep();
    let options = ClusterOptions {
        directory: directory.clone(),
        ephemeral: true,
        binaries: args.postgres_bin.clone(),
        connections_max: CONNECTIONS_MAX,
        durable: true,
    };
    let mut platform = tokio::select! {
        started = Platform::start(&context, &options, None) => started.inspect_err(|_| {
            // This succeeds only if the cluster has not used the directory yet.
            let _ = std::fs::remove_dir(&directory);
        })?,
        () = context.stop.requested() => bail!("interrupted"),
    };
    let outcome = tokio::select! {
        () = context.stop.requested() => Err(anyhow::anyhow!("interrupted")),
        outcome = demonstrate(platform.context.clone(), platform.api_url.clone(), &args, &timeline) => outcome,
        error = platform.failed() => Err(error),
    };
    let stopped = platform.stop().await;
    if context.stop.is_requested() {
        // The interruption may cause other errors. Only a failed stop is reported, because it leaves something behind.
        stopped?;
        bail!("interrupted");
    }
    let all_passed = outcome?;
    stopped?;
    timeline.print("everything is stopped and removed")?;
    print_text("")?;
    if all_passed {
        print_text("All checks passed. Next: `make dev`, or `ledger dev`, keeps the platform running.")?;
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: a check failed, see above");
    Ok(ExitCode::FAILURE)
}

/// Prints each step with the time since the start.
struct Timeline(Instant);

impl Timeline {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn print(&self, step: &str) -> io::Result<()> {
        print_text(format_args!("{:5.1} s  {step}", self.0.elapsed().as_secs_f64()))
    }
}

/// Posts the transactions, waits for all roles and checks the results. Returns whether every check passed.
async fn demonstrate(
    context: Context,
    api_url: String,
    args: &Args,
    timeline: &Timeline,
) -> anyhow::Result<bool> {
    timeline.print("a private PostgreSQL is up, with the roles serve, relay and consume-risk")?;
    let traffic = traffic_flags(&api_url, args)?;
    let simulated = simulate::drive(&traffic, true, &context.stop).await?;
    let report = &simulated.report;
    timeline.print(&format!(
        "{} transactions were posted ({:.0}/s, p99 {:.0} ms); {} were sent twice and created once; {} are suspicious",
        report.created,
        report.transactions_per_second,
        report.latency_ms.p99,
        report.replayed,
        report.suspicious,
    ))?;
    report.print_problems();
    let mut connection = repository::connect(&context.config.database, "demo").await?;
    let progress = settle(&mut connection).await?;
    timeline.print(&format!(
        "every event is published and every transaction is scored: {} high, {} medium, {} low",
        progress.high,
        progress.medium,
        progress.assessed - progress.high - progress.medium,
    ))?;
    print_highest_scored(&overview::highest_scored(&mut connection, HIGHEST_SCORED_SHOWN).await?)?;
    let days = aggregate_once(&context).await?;
    timeline.print(&format!("the fact tables are built ({days} touched)"))?;
    let lost = overview::not_held_once(&mut connection, &simulated.acknowledged).await?;
    let progress = overview::progress(&mut connection).await?;
    let verified = verify(&context).await?;
    timeline.print("ledger verify has checked the tables against each other")?;
    let created = i64::try_from(report.created)?;
    let mut checks = checks(created, i64::try_from(report.wrong + report.unanswered)?, lost, &progress);
    let differences = verified.checks.iter().map(|check| check.differences).sum();
    checks.push(Check { name: "differences found by ledger verify", expected: 0, found: differences });
    print_text("")?;
    print_checks(&checks)?;
    print_text("")?;
    if !verified.is_fine() {
        verified.print(OutputFormat::Table)?;
    }
    Ok(verified.is_fine() && checks.iter().all(Check::passes))
}

/// Runs all checks of `ledger verify`, and waits until nothing is in flight.
async fn verify(context: &Context) -> anyhow::Result<verify::Report> {
    let args = verify::Args { wait: Some(SETTLE_TIMEOUT), ..verify::Args::default() };
    verify::verify(context, &args).await
}

/// Returns the defaults of `ledger simulate`, but as fast as possible and with few connections, which keeps the latency
/// low.
fn traffic_flags(api_url: &str, args: &Args) -> anyhow::Result<simulate::Args> {
    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        simulate: simulate::Args,
    }
    let mut flags = Flags::try_parse_from(["simulate"])?.simulate;
    flags.url = api_url.to_owned();
    flags.rate = 0;
    flags.connections = CONNECTIONS;
    flags.transactions = Some(args.transactions);
    flags.duration = args.duration;
    flags.seed = args.seed;
    Ok(flags)
}

/// Waits until all events are published and all transactions are scored.
async fn settle(connection: &mut Connection) -> anyhow::Result<Progress> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    loop {
        let progress = overview::progress(connection).await?;
        if progress.outbox == 0 && progress.assessed + progress.dead_letters >= progress.transactions {
            return Ok(progress);
        }
        if Instant::now() >= deadline {
            bail!(
                "after {SETTLE_TIMEOUT:?}, {} of {} transactions are scored and {} events wait in the outbox",
                progress.assessed,
                progress.transactions,
                progress.outbox
            );
        }
        sleep(SETTLE_INTERVAL).await;
    }
}

async fn aggregate_once(context: &Context) -> anyhow::Result<String> {
    match aggregate::run_once(context, aggregate::Scope::Touched).await? {
        aggregate::Outcome::Ran(run) => match run.error {
            Some(error) => bail!("aggregate failed: {error}"),
            None if run.days_rebuilt == 1 => Ok("1 day".into()),
            None => Ok(format!("{} days", run.days_rebuilt)),
        },
        aggregate::Outcome::Busy { owner } => bail!("{owner} is aggregating"),
    }
}

fn print_highest_scored(assessments: &[HighestScored]) -> io::Result<()> {
    for one in assessments.iter().filter(|one| !one.reasons.is_empty()) {
        // The account id begins with the random name of the run, which is not shown.
        let account = one.account_id.splitn(3, '-').nth(2).unwrap_or(&one.account_id);
        let (seq, score) = (one.account_seq, one.risk_score);
        print_text(format_args!("           {account}, transaction {seq}: score {score}"))?;
        one.reasons.lines().try_for_each(|reason| print_text(format_args!("             {reason}")))?;
    }
    Ok(())
}

/// Two numbers from different sources that must be equal.
struct Check {
    name: &'static str,
    expected: i64,
    found: i64,
}

impl Check {
    fn passes(&self) -> bool {
        self.expected == self.found
    }
}

fn checks(created: i64, wrong: i64, lost: i64, progress: &Progress) -> Vec<Check> {
    let check = |name, expected, found| Check { name, expected, found };
    vec![
        check("wrong or missing answers of the API", 0, wrong),
        check("acknowledged transactions in the ledger", created, progress.transactions),
        check("acknowledged ids that are not in the ledger exactly once", 0, lost),
        check("events left in the outbox", 0, progress.outbox),
        // Each transaction and each assessment is one event.
        check("events in the topics", 2 * created, progress.records),
        check("scored transactions", created, progress.assessed),
        check("dead letters", 0, progress.dead_letters),
        check("rows in fact_transactions", created, progress.facts),
    ]
}

fn print_checks(checks: &[Check]) -> io::Result<()> {
    let mut out = table(["check", "expected", "found", "result"]).wrapping(["check"]);
    for check in checks {
        let result = if check.passes() { "ok" } else { "DIFFERS" };
        out.add_row([check.name, &check.expected.to_string(), &check.found.to_string(), result]);
    }
    print_text(out)
}
