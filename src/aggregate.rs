//! `ledger aggregate`: builds the fact tables from the ledger and the assessments, day by day.
//!
//! Without flags, a run writes the facts that marks name: those of transactions and assessments that committed since the
//! last run. With `--from`, `--to` or `--full` it rebuilds days.
//!
//! Guarantees:
//! - A day is rebuilt whole or not at all. A transaction and its part in the facts of its account's day are written
//!   together. A second run changes nothing.
//! - A run that is killed loses nothing: what it did not reach keeps its marks.
//! - One instance works at a time. Another instance prints the owner's name and exits with [`EXIT_BUSY`], or waits.
//!
//! Deliberately absent: a watermark. Neither ids nor times of transactions rise in the order of their commits.

mod report;
mod run;

use std::{process::ExitCode, time::Duration};

use chrono::NaiveDate;
use tokio::time::Instant;

pub use run::{LEASE, Outcome, Scope, preview, run_once};

use crate::{
    repository::facts::runs::AggregateRun,
    runtime::{Boot, Context, EXIT_MISUSED, OutputFormat, StartDetails, parse_interval, parse_time_span},
};

/// The exit code when another instance aggregates: the `EX_TEMPFAIL` of sysexits.
pub const EXIT_BUSY: u8 = 75;
/// How often an instance that waits for another one tries again.
const BUSY_RETRY_WAIT: Duration = Duration::from_secs(1);

/// Flags of `ledger aggregate`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// Keep running and start a run at this interval, for example 15m; without it, make one run
    #[arg(long, env = "LEDGER_AGGREGATE_EVERY", value_name = "DURATION", value_parser = parse_interval)]
    pub every: Option<Duration>,
    /// Rebuild all days from this UTC date on
    #[arg(long, env = "LEDGER_AGGREGATE_FROM", value_name = "DATE", conflicts_with = "every")]
    pub from: Option<NaiveDate>,
    /// Rebuild all days up to and including this UTC date
    #[arg(long, env = "LEDGER_AGGREGATE_TO", value_name = "DATE", conflicts_with = "every")]
    pub to: Option<NaiveDate>,
    /// Rebuild all days
    #[arg(long, env = "LEDGER_AGGREGATE_FULL", conflicts_with_all = ["every", "from", "to"])]
    pub full: bool,
    /// Show the days that a run would work on, and write nothing
    #[arg(long, env = "LEDGER_AGGREGATE_DRY_RUN", conflicts_with = "every")]
    pub dry_run: bool,
    /// If another instance aggregates, wait for it at most this long; without this flag, exit with 75 at once
    #[arg(long, env = "LEDGER_AGGREGATE_WAIT", value_name = "DURATION", value_parser = parse_time_span,
          conflicts_with_all = ["every", "dry_run"])]
    pub wait: Option<Duration>,
    /// Format of the result
    #[arg(long, env = "LEDGER_AGGREGATE_OUTPUT", value_enum, default_value_t)]
    pub output: OutputFormat,
}

impl Args {
    fn scope(&self) -> Scope {
        match (self.full, self.from, self.to) {
            (true, ..) => Scope::Full,
            (false, None, None) => Scope::Touched,
            (false, from, to) => Scope::Range { from, to },
        }
    }
}

/// Runs the role: one run, or one at each interval until it is stopped.
pub async fn run(context: Context, args: Args) -> anyhow::Result<ExitCode> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from > to
    {
        eprintln!("error: --from {from} is after --to {to}");
        return Ok(ExitCode::from(EXIT_MISUSED));
    }
    let boot = Boot::new(&context, "aggregate");
    drop(boot.connect_to_write().await?);
    match args.every {
        None => once(&context, &args).await,
        Some(interval) => repeat(&context, boot, interval).await,
    }
}

/// Makes one run, for cron. It has no admin listener: the run is short, and it must not need a port.
async fn once(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    let scope = args.scope();
    if args.dry_run {
        let days = preview(context, scope).await?;
        report::print_previews(scope.mode(), &days, args.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = run_when_free(context, scope, args.wait).await?;
    report::print_outcome(&outcome, args.output)?;
    Ok(match outcome {
        Outcome::Ran(AggregateRun { error: None, .. }) => ExitCode::SUCCESS,
        Outcome::Ran(_) => ExitCode::FAILURE,
        Outcome::Busy { .. } => ExitCode::from(EXIT_BUSY),
    })
}

/// Makes one run. Waits for another instance for at most `wait`.
async fn run_when_free(context: &Context, scope: Scope, wait: Option<Duration>) -> anyhow::Result<Outcome> {
    let deadline = Instant::now() + wait.unwrap_or_default();
    loop {
        let outcome = run_once(context, scope).await?;
        let is_busy = matches!(outcome, Outcome::Busy { .. });
        if !is_busy || Instant::now() >= deadline || context.stop.is_requested() {
            return Ok(outcome);
        }
        tokio::select! {
            () = tokio::time::sleep(BUSY_RETRY_WAIT) => {}
            () = context.stop.requested() => {}
        }
    }
}

async fn repeat(context: &Context, boot: Boot<'_>, interval: Duration) -> anyhow::Result<ExitCode> {
    let admin = boot.started(StartDetails { every: Some(interval), ..StartDetails::default() })?;
    metrics::counter!("ledger_aggregate_rebuilds_total").increment(0);
    context.health.set_ready(true);
    let health = context.health.part("aggregating");
    let mut outage = context.outages.log_of("aggregating");
    while !context.stop.is_requested() {
        let outcome = run_once(context, Scope::Touched).await;
        health.set_failing(!matches!(
            &outcome,
            Ok(Outcome::Busy { .. } | Outcome::Ran(AggregateRun { error: None, .. }))
        ));
        match outcome {
            Ok(outcome) => {
                outage.succeeded();
                log(outcome, context.stop.is_requested());
            }
            Err(error) => outage.failed(&format!("{error:#}")),
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = context.stop.requested() => {}
        }
    }
    admin.stop().await;
    Ok(ExitCode::SUCCESS)
}

fn log(outcome: Outcome, is_stopping: bool) {
    match outcome {
        // A stop in the middle of a run is no failure.
        Outcome::Ran(AggregateRun { id, error: Some(reason), .. }) if is_stopping => {
            tracing::info!(run = id, reason, "the run ended early");
        }
        Outcome::Ran(run) => log_run(&run),
        Outcome::Busy { owner } => tracing::info!(owner, "another instance is aggregating"),
    }
}

fn log_run(run: &AggregateRun) {
    match &run.error {
        Some(error) => tracing::error!(run = run.id, error, "the run failed"),
        None => tracing::info!(
            run = run.id,
            days = run.days_rebuilt,
            transactions = run.transactions,
            added = run.rows_added,
            changed = run.rows_changed,
            removed = run.rows_removed,
            "aggregated"
        ),
    }
}
