//! `ledger aggregate`: builds the fact tables from the ledger and the assessments, day by day.
//!
//! Without flags, a run rebuilds the days with marks: those with transactions or assessments that committed after the
//! last rebuild of the day.
//!
//! Guarantees:
//! - A day is rebuilt whole or not at all. A second run changes nothing.
//! - A run that is killed loses nothing: the days that it did not reach keep their marks.
//! - One instance works at a time. Another instance prints the owner's name and exits.
//!
//! Deliberately absent: a watermark. Neither ids nor times of transactions rise in the order of their commits.

mod run;

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use chrono::NaiveDate;

pub use run::{LEASE, Outcome, Scope, run_once};

use crate::{
    repository::facts::runs::AggregateRun,
    runtime::{
        Boot, Context, EXIT_MISUSED, OutputFormat, StartDetails, parse_interval, print_json, print_text,
        table,
    },
};

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
    match run_once(context, args.scope()).await? {
        Outcome::Ran(run) => {
            print(&run, args.output)?;
            Ok(if run.error.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Outcome::Busy { owner } => {
            eprintln!("{owner} is aggregating; this instance did nothing");
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn repeat(context: &Context, boot: Boot<'_>, interval: Duration) -> anyhow::Result<ExitCode> {
    let admin = boot.started(StartDetails { every: Some(interval), ..StartDetails::default() })?;
    context.health.set_ready(true);
    while !context.stop.is_requested() {
        let outcome = run_once(context, Scope::Touched).await;
        context.health.set_ready(matches!(
            &outcome,
            Ok(Outcome::Busy { .. } | Outcome::Ran(AggregateRun { error: None, .. }))
        ));
        log(outcome);
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = context.stop.requested() => {}
        }
    }
    admin.stop().await;
    Ok(ExitCode::SUCCESS)
}

fn log(outcome: anyhow::Result<Outcome>) {
    match outcome {
        Ok(Outcome::Ran(run)) => log_run(&run),
        Ok(Outcome::Busy { owner }) => tracing::info!(owner, "another instance is aggregating"),
        Err(error) => tracing::error!(error = format!("{error:#}"), "the run failed"),
    }
}

fn log_run(run: &AggregateRun) {
    match &run.error {
        Some(error) => tracing::error!(run = run.id, error, "the run failed"),
        None => tracing::info!(
            run = run.id,
            days = run.days_rebuilt,
            transactions = run.transactions,
            "aggregated"
        ),
    }
}

fn print(run: &AggregateRun, output: OutputFormat) -> anyhow::Result<()> {
    if output == OutputFormat::Json {
        return print_json(run).context("cannot print the run");
    }
    let day = |day: Option<NaiveDate>| day.map_or_else(|| "–".to_owned(), |day| day.to_string());
    let seconds = run.finished_at.map_or(0.0, |end| (end - run.started_at).as_seconds_f64());
    let mut table = table(["run", "mode", "status", "days", "from", "to", "transactions", "seconds"])
        .optional(["mode", "run"]);
    table.add_row([
        run.id.to_string(),
        run.mode.clone(),
        run.status.clone(),
        run.days_rebuilt.to_string(),
        day(run.first_day),
        day(run.last_day),
        run.transactions.to_string(),
        format!("{seconds:.1}"),
    ]);
    print_text(table)?;
    if let Some(error) = &run.error {
        eprintln!("error: {error}");
    }
    Ok(())
}
