//! The command line. The flags of a command are in the folder of the command; this file lists the commands and loads the
//! configuration. Exit codes: 0 success and the stop of a role, 1 failure with one line on stderr, 2 wrong usage, 130 and
//! 143 a command that SIGINT or SIGTERM interrupted.
//! A reader that closes the pipe early (`ledger openapi | head`) changes neither the work nor the exit code of a command.

mod help;
mod misuse;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use uuid::Uuid;

use crate::{
    aggregate,
    config::{self, Overrides},
    consume_risk,
    dev::{self, demo, simulate},
    event, import, ops, relay,
    runtime::{
        Context, DatabaseClock, Health, Outages, Stop, arm_wall_clock, fail_point, long_version, print_json,
        print_text, raise_open_files_limit, start_telemetry, stop_on_signals,
    },
    serve,
};

/// An event-driven transaction and risk platform in one binary.
#[derive(Debug, Parser)]
#[command(
    version = long_version(),
    propagate_version = true,
    max_term_width = 110,
    after_help = "Example:\n  ledger demo\n\n`-h` is short; `--help` also names the environment variable of each flag. `ledger config print` lists every setting. The guides are in README.md and docs/; a running `ledger serve` answers with the description of its API at /docs."
)]
struct Cli {
    /// A TOML file whose values override the built-in defaults (see `ledger config print`)
    #[arg(long, global = true, env = "LEDGER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Apply the embedded migrations to the database
    #[command(
        after_help = "Examples:\n  LEDGER_DATABASE__URL=postgres://localhost/ledger ledger migrate\n  ledger migrate --grants ledger_app   # as the owner of the schema, for the user of the other commands"
    )]
    Migrate(ops::migrate::MigrateArgs),
    /// Build the fact tables for the changed days, a range of days, or all days
    #[command(
        after_help = "Examples:\n  ledger aggregate\n  ledger aggregate --every 15m\n  ledger aggregate --from 2026-01-01 --to 2026-01-31"
    )]
    Aggregate(aggregate::Args),
    /// Score every transaction once with the risk rules, and publish the result
    #[command(
        after_help = "Examples:\n  ledger consume-risk\n  ledger consume-risk --rules my-rules.toml   # follows changes of the file"
    )]
    ConsumeRisk(consume_risk::Args),
    /// Show the position, owner and lag of each consumer group in each partition
    #[command(
        after_help = "Examples:\n  ledger consumers\n  ledger consumers --group risk --output json\n  ledger consumers reset --group risk --to earliest --dry-run"
    )]
    Consumers(ops::consumers::ConsumersArgs),
    /// Show the broker that the database records, or switch to another one
    #[command(after_help = "Examples:\n  ledger broker\n  ledger broker switch --dry-run")]
    Broker(ops::broker::BrokerArgs),
    /// Show the lanes of the outbox, with the owner and the number of rows of each
    #[command(after_help = "Examples:\n  ledger lanes --waiting\n  ledger lanes --output json")]
    Lanes(ops::lanes::LanesArgs),
    /// Ask the admin listener of a role on this machine; exit 1 unless the role is ready
    #[command(
        after_help = "Examples:\n  ledger health\n  LEDGER_ADMIN__LISTEN=127.0.0.1:9091 ledger health --live --timeout 1s"
    )]
    Health(ops::health::HealthArgs),
    /// List, show, retry and dismiss dead letters
    #[command(after_help = "Examples:\n  ledger dlq list\n  ledger dlq replay --all --dry-run")]
    Dlq {
        #[command(subcommand)]
        command: ops::dlq::DlqCommand,
    },
    /// Publish the events of transactions again, in order per account
    #[command(
        after_help = "The events go through the outbox, with the header ce_republished. A consumer drops an event that it has handled, and handles one that it has never seen. Each run is recorded in the table republications.\n\nExamples:\n  ledger republish 01a206a6-4f5f-7c41-87f5-c48b0979c33c\n  ledger republish --account acct-42 --from 2026-11-24 --dry-run\n  ledger republish --missing --dry-run\n  ledger republish --missing --yes"
    )]
    Republish(ops::republish::RepublishArgs),
    /// Import transactions from another system, with the same checks and events as the API
    #[command(
        after_help = "Columns: account_id, idempotency_key, direction, amount, currency, and optionally created_at, counterparty, description, metadata.NAME, expected_balance.\n\nExamples:\n  ledger import --dry-run history.csv.gz\n  ledger import history.csv.gz --ignore branch --on-error skip --rejects rejects.csv\n  ledger import --guess bank.csv > bank.toml\n  ledger import --map bank.toml bank.csv"
    )]
    Import(import::Args),
    /// Validate risk rules, and assess transactions whose events are lost
    #[command(after_help = "Examples:\n  ledger risk check my-rules.toml\n  ledger risk assess --dry-run")]
    Risk {
        #[command(subcommand)]
        command: ops::risk::RiskCommand,
    },
    /// Compare ledger, outbox, topics, assessments and facts; exit 1 on a difference
    #[command(after_help = "Examples:\n  ledger verify\n  ledger verify --wait 30s --output json")]
    Verify(ops::verify::Args),
    /// Publish the outbox to the broker, in order per account
    #[command(
        after_help = "Example:\n  LEDGER_BROKER__KIND=kafka LEDGER_BROKER__KAFKA__BOOTSTRAP_SERVERS=localhost:9092 ledger relay"
    )]
    Relay,
    /// Print the JSON Schema of one event type, or of all
    #[command(
        after_help = "Examples:\n  ledger schemas > events.schema.json\n  ledger schemas TransactionCreated.v1"
    )]
    Schemas {
        /// The event type, as in the header `ce_type`
        #[arg(value_name = "TYPE", value_parser = clap::builder::PossibleValuesParser::new(event::EVENT_TYPES))]
        event_type: Option<String>,
    },
    /// Serve the HTTP API
    #[command(after_help = "Example:\n  LEDGER_DATABASE__URL=postgres://localhost/ledger ledger serve")]
    Serve,
    /// Print the OpenAPI 3.1 description of the HTTP API
    #[command(after_help = "Example:\n  ledger openapi > openapi.json")]
    Openapi,
    /// Run a private PostgreSQL and all roles in one process
    #[command(after_help = "Examples:\n  ledger dev\n  ledger dev --data-dir ./data --listen 127.0.0.1:8081")]
    Dev(dev::Args),
    /// Run transactions through all roles on a temporary database, and verify the result
    #[command(after_help = "Examples:\n  ledger demo\n  ledger demo --transactions 100000 --duration 1m")]
    Demo(demo::Args),
    /// Send realistic traffic to a running API and check every answer
    #[command(
        after_help = "Examples:\n  ledger simulate --rate 1000 --duration 1m\n  ledger simulate --rate 0 --hot-share 1 --output json"
    )]
    Simulate(simulate::Args),
    /// Check or print the configuration
    #[command(after_help = "Examples:\n  ledger config check --config ledger.toml\n  ledger config print")]
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Compare the topics of the broker with the configuration
    #[command(
        after_help = "Examples:\n  ledger topics\n  ledger topics --partitions\n  ledger topics create --dry-run"
    )]
    Topics(ops::topics::TopicsArgs),
    /// Print shell completions
    #[command(after_help = "Example:\n  ledger completions bash > /etc/bash_completion.d/ledger")]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write a man page for each command
    #[command(after_help = "Example:\n  ledger man /usr/local/share/man/man1")]
    Man {
        /// The directory; it is created if it is missing
        #[arg(value_name = "DIRECTORY")]
        directory: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration; exit 1 with the first error
    #[command(after_help = "Example:\n  ledger config check --config ledger.toml")]
    Check,
    /// Print the configuration as documented TOML; secrets are hidden
    #[command(after_help = "Example:\n  LEDGER_SERVE__WRITERS=4 ledger config print > ledger.toml")]
    Print,
}

/// How a command ends after the first signal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnSignal {
    /// It runs until it is stopped, so a signal is its normal end.
    Stops,
    /// It ends by itself between two steps of its work, and says how far it came.
    EndsBetweenSteps,
    /// It is ended at once. Its change of the database, if it makes one, is one database transaction: PostgreSQL keeps all
    /// of it or nothing. Topics that `topics create` has created remain.
    Ends,
}

/// How long a command may take to end between two steps. A step may be a query of an hour.
const STEP_END_WAIT: Duration = Duration::from_secs(4);

impl Command {
    fn on_signal(&self) -> OnSignal {
        match self {
            Self::Serve | Self::Relay | Self::ConsumeRisk(_) | Self::Dev(_) => OnSignal::Stops,
            Self::Aggregate(args) if args.every.is_some() => OnSignal::Stops,
            Self::Aggregate(_)
            | Self::Migrate(_)
            | Self::Import(_)
            | Self::Republish(_)
            | Self::Demo(_)
            | Self::Simulate(_)
            | Self::Verify(_)
            | Self::Risk { .. }
            | Self::Dlq { command: ops::dlq::DlqCommand::Replay(_) } => OnSignal::EndsBetweenSteps,
            _ => OnSignal::Ends,
        }
    }

    /// Returns the name of the command in traces.
    fn role(&self) -> &'static str {
        match self {
            Self::Migrate(_) => "migrate",
            Self::Aggregate(_) => "aggregate",
            Self::ConsumeRisk(_) => "consume-risk",
            Self::Broker(_) => "broker",
            Self::Consumers(_) => "consumers",
            Self::Dlq { .. } => "dlq",
            Self::Health(_) => "health",
            Self::Lanes(_) => "lanes",
            Self::Topics(_) => "topics",
            Self::Import(_) => "import",
            Self::Republish(_) => "republish",
            Self::Risk { .. } => "risk",
            Self::Verify(_) => "verify",
            Self::Relay => "relay",
            Self::Schemas { .. } => "schemas",
            Self::Serve => "serve",
            Self::Openapi => "openapi",
            Self::Dev(_) => "dev",
            Self::Demo(_) => "demo",
            Self::Simulate(_) => "simulate",
            Self::Config { .. } => "config",
            Self::Completions { .. } => "completions",
            Self::Man { .. } => "man",
        }
    }

    /// Returns the configuration values that flags override.
    fn overrides(&self) -> Overrides {
        match self {
            Self::ConsumeRisk(args) => args.overrides(),
            Self::Dlq { command } => command.overrides(),
            Self::Risk { command } => command.overrides(),
            Self::Dev(args) => args.overrides(),
            Self::Demo(args) => args.overrides(),
            _ => Overrides::new(),
        }
    }

    async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        match self {
            Self::Migrate(args) => ops::migrate::run(context, args).await,
            Self::Aggregate(args) => aggregate::run(context, args).await,
            Self::ConsumeRisk(_) => consume_risk::run(context).await.map(|()| ExitCode::SUCCESS),
            Self::Broker(args) => ops::broker::run(context, args).await,
            Self::Consumers(args) => ops::consumers::run(context, args).await,
            Self::Health(args) => ops::health::run(&context, args).await,
            Self::Lanes(args) => ops::lanes::run(context, args).await,
            Self::Topics(args) => ops::topics::run(context, args).await,
            Self::Dlq { command } => ops::dlq::run(context, command).await,
            Self::Import(args) => import::run(context, args).await,
            Self::Republish(args) => ops::republish::run(context, args).await,
            Self::Risk { command } => ops::risk::run(context, &command).await,
            Self::Verify(args) => ops::verify::run(context, args).await,
            Self::Relay => relay::run(context).await.map(|()| ExitCode::SUCCESS),
            Self::Serve => serve::run(context).await.map(|()| ExitCode::SUCCESS),
            Self::Openapi => openapi(),
            Self::Dev(args) => dev::run(context, args).await,
            Self::Demo(args) => demo::run(context, args).await,
            Self::Simulate(args) => simulate::run(context, args).await,
            // `start` has answered these.
            Self::Config { .. } | Self::Completions { .. } | Self::Man { .. } | Self::Schemas { .. } => {
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Parses the command line, runs the command and returns the exit code.
pub async fn run() -> ExitCode {
    let is_short = std::env::args_os().any(|argument| argument == "-h");
    let mut command = help::with_help(Cli::command(), is_short);
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches)).unwrap_or_else(|error| {
        if let Some(variable) = misuse::variable_of(&command, &error) {
            eprintln!("the variable {variable} has a value that is not allowed:");
        }
        error.exit()
    });
    match start(cli).await {
        Ok(code) => code,
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Returns the output of a command that only prints text, or None for another command.
fn printed(cli: &Cli) -> anyhow::Result<Option<String>> {
    let file = cli.config.as_deref();
    match &cli.command {
        Command::Config { command: ConfigCommand::Check } => {
            config::load(file, environment(), &Overrides::new())?;
            Ok(Some("the configuration is valid\n".into()))
        }
        Command::Config { command: ConfigCommand::Print } => {
            Ok(Some(config::print(file, environment(), &Overrides::new())?))
        }
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "ledger", &mut text);
            Ok(Some(String::from_utf8(text).context("completions")?))
        }
        Command::Man { directory } => {
            let pages = help::write_man_pages(Cli::command(), directory)
                .with_context(|| format!("cannot write man pages to {}", directory.display()))?;
            Ok(Some(format!("wrote {pages} pages to {}", directory.display())))
        }
        Command::Schemas { event_type } => {
            let schema = match event_type {
                None => Some(event::schemas()?),
                Some(event_type) => event::schema(event_type)?,
            };
            Ok(Some(format!("{:#}\n", schema.context("there is no such type")?)))
        }
        _ => Ok(None),
    }
}

async fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Some(text) = printed(&cli)? {
        print_text(text.trim_end_matches('\n')).context("cannot print")?;
        return Ok(ExitCode::SUCCESS);
    }
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider was installed before main"))?;
    let config = config::load(cli.config.as_deref(), environment(), &cli.command.overrides())?;
    let role = cli.command.role();
    let instance = instance_name();
    let telemetry = start_telemetry(&config.log, role, &instance)?;
    raise_open_files_limit();
    fail_point::arm()?;
    arm_wall_clock()?;
    let stop = Stop::new();
    let signal = stop_on_signals(&stop)?;
    let context = Context {
        config: Arc::new(config),
        stop: stop.clone(),
        health: Health::default(),
        clock: DatabaseClock::default(),
        outages: Outages::default(),
        metrics: telemetry.metrics.clone(),
        exports_traces: telemetry.exports_traces(),
        instance: instance.into(),
    };
    let on_signal = cli.command.on_signal();
    let interrupted = async {
        stop.requested().await;
        match on_signal {
            OnSignal::Stops => std::future::pending().await,
            OnSignal::EndsBetweenSteps => tokio::time::sleep(STEP_END_WAIT).await,
            OnSignal::Ends => {}
        }
    };
    let outcome = tokio::select! {
        outcome = cli.command.run(context) => outcome,
        () = interrupted => Err(anyhow::anyhow!("interrupted")),
    };
    telemetry.end(stop.time_left());
    match signal.exit_code().filter(|_| on_signal != OnSignal::Stops) {
        None => outcome,
        Some(code) => {
            if let Err(error) = outcome {
                print_error(&error);
            }
            Ok(code.into())
        }
    }
}

fn print_error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// Returns the environment. Bytes that are not UTF-8 become replacement characters, so that no variable is ignored.
fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Returns a unique name: host, process id and a random part.
fn instance_name() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let random = Uuid::new_v4().simple().to_string();
    format!("{host}-{}-{}", std::process::id(), random.get(..6).unwrap_or_default())
}

fn openapi() -> anyhow::Result<ExitCode> {
    print_json(&serve::description()?)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(command: &clap::Command) -> Vec<String> {
        let own = command.get_arguments().filter_map(|argument| argument.get_env());
        let own: Vec<String> = own.map(|name| name.to_string_lossy().into_owned()).collect();
        own.into_iter().chain(command.get_subcommands().flat_map(variables)).collect()
    }

    #[test]
    fn no_variable_of_a_flag_is_taken_for_a_misspelled_key() {
        let found = variables(&Cli::command());
        assert!(found.len() > 20, "{found:?}");
        for name in found {
            config::load(None, [(name.clone(), "x".to_owned())].into_iter(), &Overrides::new()).expect(&name);
        }
    }
}
