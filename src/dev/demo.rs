//! `ledger demo`: transactions go the whole way through every role, and at the end everything is held against
//! everything else. Exit code 0 means that all of it checked out. No process and no file is left behind.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Parser;
use comfy_table::{Cell, CellAlignment};
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
        overview::{self, Progress, Striking},
    },
    runtime::{Context, OutputFormat, parse_interval, table},
};

/// Longest wait for the last event to be published and the last transaction to be scored.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
const SETTLE_INTERVAL: Duration = Duration::from_millis(50);
const STRIKING_SHOWN: i32 = 3;
const CONNECTIONS: u16 = 64;

/// Flags of `ledger demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How many to post
    #[arg(long, env = "LEDGER_DEMO_TRANSACTIONS", value_name = "COUNT", default_value_t = 5000,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub transactions: u64,
    /// Stop posting after this long, even if they were fewer
    #[arg(long, env = "LEDGER_DEMO_DURATION", default_value = "10s", value_parser = parse_interval)]
    pub duration: Duration,
    /// Makes the same traffic again; without it, other traffic each time
    #[arg(long, env = "LEDGER_DEMO_SEED")]
    pub seed: Option<u64>,
    /// Directory of PostgreSQL's programs; otherwise installed ones are found, or portable ones fetched once
    #[arg(long, env = "LEDGER_DEMO_POSTGRES_BIN", value_name = "DIR")]
    pub postgres_bin: Option<std::path::PathBuf>,
}

impl Args {
    /// A demo needs no free port of its own and tells its story without the roles' logs.
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

/// Runs the demo; Ctrl-C ends it early and cleanly.
pub async fn run(context: Context, args: Args) -> anyhow::Result<ExitCode> {
    println!("Transactions go the whole way, and at the end everything is held against everything else.\n");
    let story = Story::begin();
    let directory =
        tempfile::Builder::new().prefix("ledger-demo-").tempdir().context("no temporary directory")?;
    // Removed by the cluster, after its server has ended: not by a guard that knows nothing of the server.
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
            // Only where the cluster never used it, and it is empty.
            let _ = std::fs::remove_dir(&directory);
        })?,
        () = context.stop.requested() => bail!("interrupted"),
    };
    story.tell("a private PostgreSQL is up, and on it the roles serve, relay and consume-risk");
    let shown = tokio::select! {
        () = context.stop.requested() => Err(anyhow::anyhow!("interrupted")),
        shown = show(platform.context.clone(), platform.api_url.clone(), &args, &story) => shown,
        error = platform.broken() => Err(error),
    };
    let stopped = platform.stop().await;
    if context.stop.is_requested() {
        // Whatever else went wrong did so because of it; only what is left behind is worth a word.
        stopped?;
        bail!("interrupted");
    }
    let checked_out = shown?;
    stopped?;
    story.tell("everything is stopped and removed");
    println!();
    if checked_out {
        println!("All of it checks out. Next: `ledger dev` keeps all of this running.");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: not all of it checks out, see above");
    Ok(ExitCode::FAILURE)
}

/// Prints what has just happened, with the time since the start.
struct Story(Instant);

impl Story {
    fn begin() -> Self {
        Self(Instant::now())
    }

    fn tell(&self, what: &str) {
        println!("{:5.1} s  {what}", self.0.elapsed().as_secs_f64());
    }
}

async fn show(context: Context, api_url: String, args: &Args, story: &Story) -> anyhow::Result<bool> {
    let traffic = traffic_flags(&api_url, args)?;
    let simulated = simulate::drive(&traffic, true, &context.stop).await?;
    let report = &simulated.report;
    story.tell(&format!(
        "{} transactions were posted ({:.0}/s, p99 {:.0} ms); {} were sent twice and posted once; {} are up to no good",
        report.created,
        report.transactions_per_second,
        report.latency_ms.p99,
        report.replayed,
        report.suspicious,
    ));
    report.print_problems();
    let mut connection = repository::connect(&context.config.database, "demo").await?;
    let progress = settle(&mut connection).await?;
    story.tell(&format!(
        "every event is published and every transaction scored: {} high, {} medium, {} low",
        progress.high,
        progress.medium,
        progress.assessed - progress.high - progress.medium,
    ));
    print_striking(&overview::most_striking(&mut connection, STRIKING_SHOWN).await?);
    let days = aggregate_once(&context).await?;
    story.tell(&format!("the fact tables are built ({days} touched)"));
    let lost = overview::not_held_once(&mut connection, &simulated.acknowledged).await?;
    let progress = overview::progress(&mut connection).await?;
    let verified = verify(&context).await?;
    story.tell("ledger verify has held all of it against each other");
    let created = i64::try_from(report.created)?;
    let mut checks = checks(created, i64::try_from(report.wrong + report.unanswered)?, lost, &progress);
    let differences = verified.checks.iter().map(|check| check.differences).sum();
    checks.push(Check { what: "differences found by ledger verify", wanted: 0, found: differences });
    println!();
    print_checks(&checks);
    println!();
    if !verified.is_fine() {
        verified.print(OutputFormat::Table)?;
    }
    Ok(verified.is_fine() && checks.iter().all(Check::holds))
}

/// All that `ledger verify` checks; nothing may be in flight any more.
async fn verify(context: &Context) -> anyhow::Result<verify::Report> {
    let args = verify::Args { wait: Some(SETTLE_TIMEOUT), ..verify::Args::default() };
    verify::verify(context, &args).await
}

/// The defaults of `ledger simulate`, as fast as the machine can, and with few requests at the same time: how long
/// one takes is part of the story.
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

/// Waits until nothing is left to publish and everything is scored.
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

fn print_striking(striking: &[Striking]) {
    for one in striking.iter().filter(|one| !one.reasons.is_empty()) {
        // The run's random name says nothing to a reader.
        let account = one.account_id.splitn(3, '-').nth(2).unwrap_or(&one.account_id);
        println!("           {account}, transaction {}: score {}", one.account_seq, one.risk_score);
        one.reasons.lines().for_each(|reason| println!("             {reason}"));
    }
}

/// Two figures from different places that must agree.
struct Check {
    what: &'static str,
    wanted: i64,
    found: i64,
}

impl Check {
    fn holds(&self) -> bool {
        self.wanted == self.found
    }
}

fn checks(created: i64, wrong: i64, lost: i64, progress: &Progress) -> Vec<Check> {
    let check = |what, wanted, found| Check { what, wanted, found };
    vec![
        check("wrong or missing answers of the API", 0, wrong),
        check("transactions acknowledged, in the ledger", created, progress.transactions),
        check("acknowledged ids not in the ledger exactly once", 0, lost),
        check("events left in the outbox", 0, progress.outbox),
        // Each transaction and each assessment is one event.
        check("events in the topics", 2 * created, progress.records),
        check("transactions scored", created, progress.assessed),
        check("dead letters", 0, progress.dead_letters),
        check("rows in fact_transactions", created, progress.facts),
    ]
}

fn print_checks(checks: &[Check]) {
    let mut out = table(["", "wanted", "found", ""]);
    let number = |value: i64| Cell::new(value).set_alignment(CellAlignment::Right);
    for check in checks {
        let verdict = if check.holds() { "ok" } else { "DIFFERS" };
        out.add_row([Cell::new(check.what), number(check.wanted), number(check.found), Cell::new(verdict)]);
    }
    println!("{out}");
}
