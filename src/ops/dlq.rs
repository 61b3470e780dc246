//! `ledger dlq`: records that could not be handled. Look at them, and run them through the handler again.
//!
//! Reads and writes the database only; neither the broker nor a running role is needed. Deliberately absent: removing
//! letters, and publishing a record to the topic that it came from a second time.

mod content;
mod list;
mod replay;
mod show;

use std::{path::PathBuf, process::ExitCode};

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::time_argument;
use crate::{
    config::Overrides,
    repository::{self, Connection, dead_letters::DeadLetterFilter},
    runtime::{Boot, Context, OutputFormat},
};

/// What can be done with dead letters.
#[derive(Debug, Clone, Subcommand)]
pub enum DlqCommand {
    /// List dead letters, newest first
    #[command(
        after_help = "Examples:\n  ledger dlq list --open --since 2h\n  ledger dlq list --reason undecodable --output json\n  ledger dlq list --before 01a206a6-4f5f-7c41-87f5-c48b0979c33c   # the next page"
    )]
    List(ListArgs),
    /// Show one dead letter: its record, where it was, why it could not be handled, and every replay
    #[command(after_help = "Example:\n  ledger dlq show 01a206a6-4f5f-7c41-87f5-c48b0979c33c")]
    Show(ShowArgs),
    /// Run dead letters through the handler again; exit 1 if any still fails
    #[command(
        after_help = "A record of transactions.v1 goes through the rules as they are configured now: its assessment, the announcement\nand a line of the audit are committed together. It is not published again. Doing it twice has one effect.\nA record that was too large for the dead-letter topic goes back into the outbox.\n\nExamples:\n  ledger dlq replay 01a206a6-4f5f-7c41-87f5-c48b0979c33c --dry-run\n  ledger dlq replay --all --reason rule_error --rate 50/s --rules fixed.toml"
    )]
    Replay(ReplayArgs),
}

/// Which letters are meant.
#[derive(Debug, Clone, Default, Args)]
pub struct FilterArgs {
    /// Only of this topic
    #[arg(long, env = "LEDGER_DLQ_TOPIC", value_name = "NAME")]
    pub topic: Option<String>,
    /// Only for this reason: unknown_type, no_key, wrong_key, undecodable, not_in_ledger, differs_from_ledger,
    /// rule_error, process_ended, record_too_large, record_invalid
    #[arg(long, env = "LEDGER_DLQ_REASON", value_name = "WORD")]
    pub reason: Option<String>,
    /// Only what this consumer group, or `relay`, gave up
    #[arg(long, env = "LEDGER_DLQ_GROUP", value_name = "NAME")]
    pub group: Option<String>,
    /// Only those put aside since then: a time, a day, or how long ago (2h)
    #[arg(long, env = "LEDGER_DLQ_SINCE", value_name = "MOMENT", value_parser = time_argument::parse)]
    pub since: Option<DateTime<Utc>>,
    /// Only those put aside before then
    #[arg(long, env = "LEDGER_DLQ_UNTIL", value_name = "MOMENT", value_parser = time_argument::parse)]
    pub until: Option<DateTime<Utc>>,
}

const EXIT_MISUSED: u8 = 2;

impl FilterArgs {
    /// What contradicts itself, in one line.
    fn contradiction(&self) -> Option<String> {
        let (since, until) = self.since.zip(self.until).filter(|(since, until)| since > until)?;
        Some(format!("--since {since} is after --until {until}"))
    }

    fn filter(&self, only_open: bool) -> DeadLetterFilter {
        let Self { topic, reason, group, since, until } = self.clone();
        DeadLetterFilter { group, topic, reason, since, until, only_open }
    }
}

/// Flags of `ledger dlq list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Only those that no replay has settled
    #[arg(long, env = "LEDGER_DLQ_OPEN")]
    open: bool,
    /// Only those older than this letter: the last one of the page before
    #[arg(long, env = "LEDGER_DLQ_BEFORE", value_name = "ID")]
    before: Option<Uuid>,
    /// How many at most
    #[arg(long, env = "LEDGER_DLQ_LIMIT", value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1_000))]
    limit: i64,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_DLQ_OUTPUT")]
    output: OutputFormat,
}

/// Flags of `ledger dlq show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// The letter
    id: Uuid,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_DLQ_OUTPUT")]
    output: OutputFormat,
}

/// Flags of `ledger dlq replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// The letters
    #[arg(required_unless_present = "all", value_name = "ID",
          conflicts_with_all = ["all", "topic", "reason", "group", "since", "until", "limit"])]
    ids: Vec<Uuid>,
    /// All that no replay has settled and that the filters leave, oldest first
    #[arg(long, env = "LEDGER_DLQ_REPLAY_ALL")]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// How many at most with --all, of those that are there when it begins
    #[arg(long, env = "LEDGER_DLQ_REPLAY_LIMIT", value_name = "COUNT", value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
    /// How fast: 50/s
    #[arg(long, env = "LEDGER_DLQ_REPLAY_RATE", value_name = "N/s", value_parser = replay::parse_rate)]
    rate: Option<u32>,
    /// Say what would come of it and write nothing
    #[arg(long, env = "LEDGER_DLQ_REPLAY_DRY_RUN")]
    dry_run: bool,
    /// The rule file, instead of risk.rules; without either, the rules that the binary carries
    #[arg(long, env = "LEDGER_DLQ_REPLAY_RULES", value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Who does it, for the audit; without it, the user and the host
    #[arg(long, env = "LEDGER_DLQ_REPLAY_BY", value_name = "NAME")]
    by: Option<String>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_DLQ_OUTPUT")]
    output: OutputFormat,
}

impl DlqCommand {
    fn filter(&self) -> Option<&FilterArgs> {
        match self {
            Self::List(args) => Some(&args.filter),
            Self::Replay(args) => Some(&args.filter),
            Self::Show(_) => None,
        }
    }

    /// What the flags say over the configuration.
    pub fn overrides(&self) -> Overrides {
        let Self::Replay(ReplayArgs { rules: Some(rules), .. }) = self else { return Overrides::new() };
        vec![("risk.rules".to_owned(), rules.display().to_string())]
    }
}

/// Runs the command.
pub async fn run(context: Context, command: DlqCommand) -> anyhow::Result<ExitCode> {
    if let Some(contradiction) = command.filter().and_then(FilterArgs::contradiction) {
        eprintln!("error: {contradiction}");
        return Ok(ExitCode::from(EXIT_MISUSED));
    }
    let mut connection = Boot::new(&context, "dlq").connect().await?;
    match command {
        DlqCommand::List(args) => list::run(&mut connection, &args).await,
        DlqCommand::Show(args) => show::run(&mut connection, &args).await,
        DlqCommand::Replay(args) => replay::run(&context, &mut connection, &args).await,
    }
}

async fn letter(
    connection: &mut Connection,
    id: Uuid,
) -> anyhow::Result<repository::dead_letters::DeadLetter> {
    let found = repository::dead_letters::find(connection, id).await?;
    found.ok_or_else(|| anyhow::anyhow!("there is no dead letter {id}"))
}

/// `transactions.v1/3@17`, as far as it is known.
fn place(letter: &repository::dead_letters::DeadLetter) -> String {
    let partition = letter.partition.map(|partition| format!("/{partition}")).unwrap_or_default();
    let offset = letter.record_offset.map(|offset| format!("@{offset}")).unwrap_or_default();
    format!("{}{partition}{offset}", letter.topic)
}
