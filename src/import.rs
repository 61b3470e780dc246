//! `ledger import FILE…`: posts the history of another system, with the same decisions and the same outbox as the API.
//!
//! ```text
//! file ─▶ CSV, gzipped CSV or Parquet ─▶ rows ─▶ groups ──bounded channel──▶ one commit a group ─▶ report
//!                (one blocking thread)                                       (this task)
//! ```
//!
//! Guarantees: rows are posted in the order of the file; a row that is already in the ledger is replayed, so an
//! interrupted import can be run again; memory does not grow with the file.
//!
//! Deliberately absent: several writers at once, which would not keep the order of an account's rows when an import
//! stops in the middle; updates of existing transactions.

mod columns;
mod csv_file;
mod csv_rows;
mod file_version;
mod gzip;
mod map;
mod mapped_file;
mod order;
mod outcome;
mod parquet_cell;
mod parquet_file;
mod parquet_limits;
mod parquet_schema;
mod poster;
mod preview;
mod reader;
mod rejects;
mod report;
mod row;
mod sorted_rows;
mod source;
mod summary;
mod tracked_input;
mod twin_keys;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use bigdecimal::BigDecimal;
use tokio::sync::mpsc;

pub use order::Order;
pub use report::{BalanceDifference, CurrencySums, Ending, Report};

use poster::ImportPoster;
use reader::{Group, Reader};
use rejects::Rejects;

use crate::runtime::{Boot, Context, OutputFormat, print_text, progress_bar};

/// The number of groups that are read ahead.
const GROUPS_AHEAD_MAX: usize = 4;
const PROGRESS: &str = "{bar:20} {percent:>3}% {eta:>4} left, {wide_msg}";

/// Flags of `ledger import`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Files, in the order in which to post them: CSV with a heading line, plain or gzipped, or Parquet
    #[arg(required_unless_present = "guess", value_name = "FILE", env = "LEDGER_IMPORT_FILES", value_delimiter = None)]
    pub files: Vec<PathBuf>,
    /// A map (TOML) that says how to read files of another program; see docs/import.md
    #[arg(long, value_name = "FILE", env = "LEDGER_IMPORT_MAP")]
    pub map: Option<PathBuf>,
    /// Propose a map for this file, print it, and import nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["files", "map"], env = "LEDGER_IMPORT_GUESS")]
    pub guess: Option<PathBuf>,
    /// The order in which to post the rows of a file; by default that of the map, or as in the file
    #[arg(long, value_enum, env = "LEDGER_IMPORT_ORDER")]
    pub order: Option<Order>,
    /// Check all rows and report the result, but write nothing
    #[arg(long, env = "LEDGER_IMPORT_DRY_RUN")]
    pub dry_run: bool,
    /// A column to ignore; may be given several times
    #[arg(long, value_name = "COLUMN", env = "LEDGER_IMPORT_IGNORE", value_delimiter = ',')]
    pub ignore: Vec<String>,
    /// Read timestamps without a time zone, and dates, as UTC; by default they are refused
    #[arg(long, env = "LEDGER_IMPORT_ASSUME_UTC")]
    pub assume_utc: bool,
    /// Largest accepted difference from expected_balance, in the account's currency; by default every difference is accepted
    #[arg(long, value_name = "AMOUNT", env = "LEDGER_IMPORT_BALANCE_TOLERANCE", value_parser = report::parse_tolerance)]
    pub balance_tolerance: Option<BigDecimal>,
    /// Write the rejected rows to this CSV file, each with its number and the reason
    #[arg(long, value_name = "FILE", env = "LEDGER_IMPORT_REJECTS")]
    pub rejects: Option<PathBuf>,
    /// What to do when a row is rejected
    #[arg(long, value_enum, default_value_t, env = "LEDGER_IMPORT_ON_ERROR")]
    pub on_error: OnError,
    /// Rows in one commit
    #[arg(long, value_name = "ROWS", default_value_t = 1000, env = "LEDGER_IMPORT_GROUP_SIZE",
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub group_size: u16,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t, env = "LEDGER_IMPORT_OUTPUT")]
    pub output: OutputFormat,
}

#[cfg(test)]
impl Args {
    /// Returns the arguments of a command line with one file and no flags.
    fn by_default() -> Self {
        #[derive(clap::Parser)]
        struct CommandLine {
            #[command(flatten)]
            args: Args,
        }
        <CommandLine as clap::Parser>::parse_from(["import", "x"]).args
    }
}

/// What to do when a row is rejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnError {
    /// Post the rows before it, and stop.
    #[default]
    Stop,
    /// Skip it and continue.
    Skip,
}

/// Runs the command and prints the summary. The command fails if the import did not reach the end of the files, if a
/// balance differs by more than the tolerance, or if rows were rejected and no file lists them.
pub async fn run(context: Context, args: Args) -> anyhow::Result<ExitCode> {
    if let Some(file) = args.guess {
        let map = tokio::task::spawn_blocking(move || map::guess(&file))
            .await
            .context("the reading thread panicked")??;
        print_text(map)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = import(&context, &args).await?;
    report.print(args.output)?;
    Ok(if report.is_fine() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Imports the files. An error means that nothing was written; the report contains any later failure.
pub async fn import(context: &Context, args: &Args) -> anyhow::Result<Report> {
    // A wrong name is reported at once, also where no database answers.
    for file in args.files.iter().chain(&args.map) {
        std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    drop(Boot::new(context, "import").connect_to_write().await?);
    let (to_check, stop) = (args.clone(), context.stop.clone());
    let (reader, checked) = tokio::task::spawn_blocking(move || Reader::check(&to_check, &stop))
        .await
        .context("the reading thread panicked")??;
    if let Some(warning) = &checked.warning {
        tracing::warn!("{warning}");
    }
    let bar = progress_bar(reader.bytes_total(), PROGRESS);
    let mut rejects = Rejects::create(args.rejects.as_deref())?;
    let mut poster = ImportPoster::new(context, args, checked.rows_skipped);
    let (sender, mut groups) = mpsc::channel(GROUPS_AHEAD_MAX);
    let reading = tokio::task::spawn_blocking(move || reader.run(&sender));
    let ending = loop {
        let group = tokio::select! {
            biased;
            () = context.stop.requested() => break Ok(Ending::Interrupted),
            group = groups.recv() => group,
        };
        let Some(group) = group else { break Ok(Ending::Complete) };
        let bytes_read = group.bytes_read;
        if let Some(ending) = post_group(group, &mut poster, &mut rejects, args).await.transpose() {
            break ending;
        }
        bar.set_position(bytes_read);
        bar.set_message(poster.progress());
    };
    bar.finish_and_clear();
    // A reader that still runs ends at its next send, because the receiver is gone.
    drop(groups);
    let read = reading.await.context("the reading thread panicked").flatten();
    let ending = match (ending, read) {
        (Err(error), _) | (Ok(Ending::Complete), Err(error)) => {
            Ending::Failed { reason: format!("{error:#}") }
        }
        (Ok(ending), _) => ending,
    };
    Ok(poster.into_report(ending))
}

/// Posts one group and writes its rejected rows. Returns the ending if the import ends with this group.
async fn post_group(
    group: Group,
    poster: &mut ImportPoster<'_>,
    rejects: &mut Rejects,
    args: &Args,
) -> anyhow::Result<Option<Ending>> {
    let Some(mut refused) = poster.post(group.rows).await? else { return Ok(Some(Ending::Interrupted)) };
    refused.extend(group.rejects);
    refused.sort_by_key(|reject| reject.location.row);
    if args.on_error == OnError::Stop {
        refused.truncate(1);
    }
    poster.count_rejects(refused.len());
    rejects.write(&refused, args.on_error)?;
    if args.on_error == OnError::Skip {
        return Ok(None);
    }
    Ok(match refused.first() {
        Some(first) => Some(Ending::Stopped { reason: first.to_string() }),
        None => poster.first_balance_error().map(|first| Ending::Differs { reason: first.to_owned() }),
    })
}
