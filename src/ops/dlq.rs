//! `ledger dlq`: lists, shows, retries and dismisses dead letters.
//!
//! It uses the database only, so it needs neither the broker nor a running role.
//!
//! Deliberately absent: the removal of dead letters, and a second publication to the topic that a record came from.

mod content;
mod dismiss;
mod list;
mod replay;
mod show;

use std::{path::PathBuf, process::ExitCode};

use chrono::{DateTime, Utc};
use clap::{
    Args, Subcommand, ValueEnum,
    builder::{NonEmptyStringValueParser, PossibleValuesParser},
};
use uuid::Uuid;

use super::{installation::Installation, time_argument};
use crate::{
    config::Overrides,
    event::{DEAD_LETTER_REASONS, TOPICS},
    repository::{self, Connection, dead_letters::DeadLetterFilter},
    runtime::{Boot, BrokerRecord, Context, EXIT_MISUSED, OutputFormat},
};

/// The subcommands of `ledger dlq`.
#[derive(Debug, Clone, Subcommand)]
pub enum DlqCommand {
    /// List the open dead letters, newest first
    #[command(
        after_help = "A dead letter is open until a replay handles it or it is dismissed.\n\nExamples:\n  ledger dlq list --since 2h\n  ledger dlq list --state all --reason process_ended\n  ledger dlq list --reason undecodable --output json\n  ledger dlq list --before 01a206a6-4f5f-7c41-87f5-c48b0979c33c   # the next page"
    )]
    List(ListArgs),
    /// Show one dead letter: its record, its offset, the reason, and every replay
    #[command(after_help = "Example:\n  ledger dlq show 01a206a6-4f5f-7c41-87f5-c48b0979c33c")]
    Show(ShowArgs),
    /// Retry dead letters; exit 1 if any still fails
    #[command(
        after_help = "A record of transactions.v1 is scored with the configured rules. The assessment, its event and a row of the audit are one commit, so repeating a replay has no further effect. The record is not published again. A record that was too large for the dead-letter topic goes back into the outbox.\n\nExamples:\n  ledger dlq replay 01a206a6-4f5f-7c41-87f5-c48b0979c33c --dry-run\n  ledger dlq replay --all --reason process_ended --rate 50/s"
    )]
    Replay(ReplayArgs),
    /// Dismiss dead letters that need no retry, with a note; they are kept
    #[command(
        after_help = "A dismissed dead letter is no longer open. It is kept with the note, and can still be replayed by its id.\n\nExamples:\n  ledger dlq dismiss 01a206a6-4f5f-7c41-87f5-c48b0979c33c --note 'written by a test of another team'\n  ledger dlq list --reason undecodable --limit 1000 --output json | jq -r '.items[].id' |\n    xargs ledger dlq dismiss --note 'foreign records of 24 November'"
    )]
    Dismiss(DismissArgs),
}

/// Selects dead letters.
#[derive(Debug, Clone, Default, Args)]
pub struct FilterArgs {
    /// Only records of this topic
    #[arg(long, env = "LEDGER_DLQ_TOPIC", value_name = "NAME", value_parser = PossibleValuesParser::new(TOPICS))]
    pub topic: Option<String>,
    /// Only this reason
    #[arg(long, env = "LEDGER_DLQ_REASON", value_name = "WORD",
          value_parser = PossibleValuesParser::new(DEAD_LETTER_REASONS))]
    pub reason: Option<String>,
    /// Only dead letters of this consumer group, or of `relay`
    #[arg(long, env = "LEDGER_DLQ_GROUP", value_name = "NAME")]
    pub group: Option<String>,
    /// Only dead letters since this time: a time, a day, or a duration ago (2h)
    #[arg(long, env = "LEDGER_DLQ_SINCE", value_name = "TIME", value_parser = time_argument::parse)]
    pub since: Option<DateTime<Utc>>,
    /// Only dead letters before this time
    #[arg(long, env = "LEDGER_DLQ_UNTIL", value_name = "TIME", value_parser = time_argument::parse)]
    pub until: Option<DateTime<Utc>>,
}

impl FilterArgs {
    /// Returns an error text if the flags contradict each other.
    fn contradiction(&self) -> Option<String> {
        let (since, until) = self.since.zip(self.until).filter(|(since, until)| since > until)?;
        Some(format!("--since {since} is after --until {until}"))
    }

    fn filter(&self, is_open: Option<bool>) -> DeadLetterFilter {
        let Self { topic, reason, group, since, until } = self.clone();
        DeadLetterFilter { group, topic, reason, since, until, is_open }
    }

    /// Refuses a group that no dead letter can have.
    async fn check_group(&self, connection: &mut Connection, configured: &str) -> anyhow::Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        let mut known = repository::dead_letters::groups(connection).await?;
        known.extend([configured.to_owned(), "relay".to_owned()]);
        known.sort();
        known.dedup();
        anyhow::ensure!(known.contains(group), "there is no group {group}; known are {}", known.join(", "));
        Ok(())
    }
}

/// Which dead letters are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum State {
    /// Neither a replay nor a dismissal has handled it.
    #[default]
    Open,
    /// A replay or a dismissal has handled it.
    Handled,
    /// Open or handled.
    All,
}

impl State {
    fn is_open(self) -> Option<bool> {
        match self {
            Self::Open => Some(true),
            Self::Handled => Some(false),
            Self::All => None,
        }
    }
}

/// Flags of `ledger dlq list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Only dead letters in this state
    #[arg(long, value_enum, default_value_t, env = "LEDGER_DLQ_STATE")]
    state: State,
    /// Only dead letters older than this id: the last of the previous page
    #[arg(long, env = "LEDGER_DLQ_BEFORE", value_name = "ID")]
    before: Option<Uuid>,
    /// The largest number of dead letters
    #[arg(long, env = "LEDGER_DLQ_LIMIT", value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1_000))]
    limit: i64,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_DLQ_OUTPUT")]
    output: OutputFormat,
}

/// Flags of `ledger dlq show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// The id of the dead letter
    id: Uuid,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_DLQ_OUTPUT")]
    output: OutputFormat,
}

/// Flags of `ledger dlq replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// The ids of the dead letters
    #[arg(required_unless_present = "all", value_name = "ID",
          conflicts_with_all = ["all", "topic", "reason", "group", "since", "until", "limit"])]
    ids: Vec<Uuid>,
    /// All open dead letters that match the filters, oldest first
    #[arg(long, env = "LEDGER_DLQ_REPLAY_ALL")]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// The largest number of dead letters with --all
    #[arg(long, env = "LEDGER_DLQ_REPLAY_LIMIT", value_name = "COUNT", value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
    /// The highest rate, such as 50/s
    #[arg(long, env = "LEDGER_DLQ_REPLAY_RATE", value_name = "N/s", value_parser = replay::parse_rate)]
    rate: Option<u32>,
    /// Show the result and write nothing
    #[arg(long, env = "LEDGER_DLQ_REPLAY_DRY_RUN")]
    dry_run: bool,
    /// The rule file, instead of risk.rules; the built-in rules if neither is set
    #[arg(long, env = "LEDGER_DLQ_REPLAY_RULES", value_name = "FILE")]
    rules: Option<PathBuf>,
    /// The name for the audit; by default user@host
    #[arg(long, env = "LEDGER_DLQ_REPLAY_BY", value_name = "NAME")]
    by: Option<String>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_DLQ_OUTPUT")]
    output: OutputFormat,
}

/// Flags of `ledger dlq dismiss`.
#[derive(Debug, Clone, Args)]
pub struct DismissArgs {
    /// The ids of the dead letters
    #[arg(required = true, value_name = "ID")]
    ids: Vec<Uuid>,
    /// Why they need no retry
    #[arg(long, env = "LEDGER_DLQ_DISMISS_NOTE", value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    note: String,
    /// The name for the audit; by default user@host
    #[arg(long, env = "LEDGER_DLQ_DISMISS_BY", value_name = "NAME")]
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
            Self::Show(_) | Self::Dismiss(_) => None,
        }
    }

    /// Returns the configuration values that the flags override.
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
    let boot = Boot::new(&context, "dlq");
    let mut connection = match command {
        DlqCommand::List(_) | DlqCommand::Show(_) => boot.connect().await?,
        DlqCommand::Replay(_) | DlqCommand::Dismiss(_) => boot.connect_to_write().await?,
    };
    if let Some(filter) = command.filter() {
        filter.check_group(&mut connection, &context.config.consume_risk.group).await?;
    }
    let installation = Installation::read(&context, &mut connection).await?;
    match command {
        DlqCommand::List(args) => list::run(&mut connection, &installation, &args).await,
        DlqCommand::Show(args) => show::run(&mut connection, &installation, &args).await,
        DlqCommand::Replay(args) => {
            // The replay needs no broker, but settings of another one are settings of another database.
            BrokerRecord::read(&mut connection).await?.check_kind(&context.config)?;
            replay::run(&context, &mut connection, &installation, &args).await
        }
        DlqCommand::Dismiss(args) => dismiss::run(&mut connection, &installation, &args).await,
    }
}

async fn dead_letter(
    connection: &mut Connection,
    id: Uuid,
) -> anyhow::Result<repository::dead_letters::DeadLetter> {
    let found = repository::dead_letters::find(connection, id).await?;
    found.ok_or_else(|| anyhow::anyhow!("there is no dead letter {id}"))
}

/// Returns `topic/partition@offset`, without unknown parts.
fn record_name(letter: &repository::dead_letters::DeadLetter) -> String {
    let partition = letter.partition.map(|partition| format!("/{partition}")).unwrap_or_default();
    let offset = letter.record_offset.map(|offset| format!("@{offset}")).unwrap_or_default();
    format!("{}{partition}{offset}", letter.topic)
}
