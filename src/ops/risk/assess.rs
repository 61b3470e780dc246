//! `ledger risk assess`: assesses transactions from the ledger whose events are lost.
//!
//! Guarantees: the result is the same as through the topic, and a transaction gets at most one assessment. If a consumer
//! or a replay assesses a transaction in parallel, the first assessment stays. The command can be stopped and repeated at
//! any time.
//!
//! Deliberately absent: transactions with a dead letter, which `ledger dlq replay` handles, and re-assessment.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use uuid::Uuid;

use super::super::{current_user::user_and_host, time_argument};
use crate::{
    consume_risk::{self, Backfill, BackfillFailure, Backfilled},
    domain::transaction_id_floor,
    repository::{self, Connection, transactions},
    runtime::{Boot, Context, EXIT_MISUSED, OutputFormat, print_json, print_text, progress_bar, table},
};

/// How many transactions one query examines.
const SCAN_ROWS_MAX: i64 = 10_000;
/// How many transactions one commit assesses.
const BATCH_ROWS_MAX: usize = 1_000;
/// The events of younger transactions are probably still in the outbox or the topic.
const AGE_MIN: TimeDelta = TimeDelta::minutes(10);
/// How many failing transactions are printed.
const FAILING_SHOWN_MAX: usize = 20;
/// The limit of one scanning query.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
const PROGRESS: &str = "{spinner} {pos} assessed, scanned up to {msg} ({elapsed})";

/// Flags of `ledger risk assess`.
#[derive(Debug, Clone, Args)]
pub struct AssessArgs {
    /// Only transactions created since this time: a time, a day, or a duration ago (2h)
    #[arg(long, env = "LEDGER_RISK_ASSESS_FROM", value_name = "TIME", value_parser = time_argument::parse)]
    from: Option<DateTime<Utc>>,
    /// Only transactions created before this time; by default 10 minutes ago, because younger events may be in flight
    #[arg(long, env = "LEDGER_RISK_ASSESS_TO", value_name = "TIME", value_parser = time_argument::parse)]
    to: Option<DateTime<Utc>>,
    /// Show the result and write nothing
    #[arg(long, env = "LEDGER_RISK_ASSESS_DRY_RUN")]
    dry_run: bool,
    /// The rule file, instead of risk.rules; the built-in rules if neither is set
    #[arg(long, env = "LEDGER_RISK_ASSESS_RULES", value_name = "FILE")]
    pub(super) rules: Option<PathBuf>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_RISK_ASSESS_OUTPUT")]
    output: OutputFormat,
}

#[derive(Default)]
struct Tally {
    found: usize,
    done: Backfilled,
    /// The number of failing transactions. `done` holds the printed ones.
    failing: usize,
}

impl Tally {
    fn add(&mut self, more: Backfilled) {
        for (level, count) in more.assessed {
            *self.done.assessed.entry(level).or_default() += count;
        }
        self.done.already += more.already;
        self.failing += more.failing.len();
        let room = FAILING_SHOWN_MAX.saturating_sub(self.done.failing.len());
        self.done.failing.extend(more.failing.into_iter().take(room));
    }

    fn assessed(&self) -> i64 {
        self.done.assessed.values().sum()
    }
}

#[derive(Serialize)]
struct FailingOut<'a> {
    transaction_id: Uuid,
    error: &'a str,
}

pub(super) async fn run(context: &Context, args: &AssessArgs) -> anyhow::Result<ExitCode> {
    let boot = Boot::new(context, "risk assess");
    let reading = boot.connect_for_long_statements(STATEMENT_TIMEOUT).await?;
    let to = args.to.unwrap_or_else(|| context.clock.now() - AGE_MIN);
    if let Some(from) = args.from.filter(|from| *from > to) {
        eprintln!("error: --from {from} is after --to {to}; the default of --to is 10 minutes ago");
        return Ok(ExitCode::from(EXIT_MISUSED));
    }
    let database = &context.config.database;
    let mut writing = repository::connect(database, "risk assess").await?;
    repository::prepare_writer(&mut writing).await?;
    let backfill =
        Backfill::new(consume_risk::load_rules(context).await?, &context.config.risk, args.dry_run);
    let bar = progress_bar(0, PROGRESS);
    let mut work = Work { reading, writing, backfill };
    let (tally, is_complete) = work.run(context, args.from, to, &bar).await?;
    bar.finish_and_clear();
    if !args.dry_run && tally.found > 0 {
        let (assessed, failing) = (tally.assessed(), tally.failing);
        tracing::info!(
            assessed,
            already = tally.done.already,
            failing,
            by = user_and_host(),
            "assessed transactions without events"
        );
    }
    print(args, &tally)?;
    anyhow::ensure!(is_complete, "stopped before all transactions were scanned; run the command again");
    Ok(if tally.failing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A connection for long queries, a connection for writing, and the rules.
struct Work {
    reading: Connection,
    writing: Connection,
    backfill: Backfill,
}

impl Work {
    /// Assesses the transactions up to `to`. The flag is false if it was stopped early.
    async fn run(
        &mut self,
        context: &Context,
        from: Option<DateTime<Utc>>,
        to: DateTime<Utc>,
        bar: &ProgressBar,
    ) -> anyhow::Result<(Tally, bool)> {
        let group = &context.config.consume_risk.group;
        let mut after = from.map_or(Uuid::nil(), |from| before_id(transaction_id_floor(from)));
        let before = transaction_id_floor(to);
        let mut tally = Tally::default();
        while let Some(upto) =
            transactions::piece_end(&mut self.reading, after, before, SCAN_ROWS_MAX).await?
        {
            let rows = transactions::unassessed(&mut self.reading, group, after, upto).await?;
            for batch in rows.chunks(BATCH_ROWS_MAX) {
                if context.stop.is_requested() {
                    return Ok((tally, false));
                }
                tally.found += batch.len();
                tally.add(self.backfill.assess(&mut self.writing, batch).await?);
                bar.set_position(u64::try_from(tally.assessed()).unwrap_or_default());
            }
            bar.set_message(upto.to_string());
            after = upto;
        }
        Ok((tally, true))
    }
}

/// Returns the greatest id below `id`.
fn before_id(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().saturating_sub(1))
}

fn print(args: &AssessArgs, tally: &Tally) -> anyhow::Result<()> {
    let Backfilled { assessed, already, failing: shown } = &tally.done;
    if args.output == OutputFormat::Json {
        let shown: Vec<FailingOut<'_>> = shown
            .iter()
            .map(|BackfillFailure { transaction_id, error }| FailingOut {
                transaction_id: *transaction_id,
                error,
            })
            .collect();
        print_json(&serde_json::json!({
            "dry_run": args.dry_run, "found": tally.found, "assessed": tally.assessed(), "levels": assessed,
            "already_assessed": already, "failing": tally.failing, "examples": shown,
        }))?;
        return Ok(());
    }
    if !shown.is_empty() {
        let mut rows = table(["transaction", "still fails"]).wrapping(["still fails"]);
        for BackfillFailure { transaction_id, error } in shown {
            rows.add_row([&transaction_id.to_string(), error]);
        }
        print_text(&rows)?;
    }
    let levels: Vec<String> = assessed.iter().map(|(level, count)| format!("{count} {level}")).collect();
    let levels = if levels.is_empty() { String::new() } else { format!(" ({})", levels.join(", ")) };
    let (dry_run, would) = if args.dry_run { ("dry run: ", "would be ") } else { ("", "") };
    print_text(format_args!(
        "{dry_run}{} without an assessment: {} {would}assessed{levels}, {already} assessed meanwhile, {} failing",
        tally.found,
        tally.assessed(),
        tally.failing
    ))?;
    Ok(())
}
