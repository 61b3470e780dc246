//! `ledger broker`: shows the broker that the database records, and moves the ledger to another one.

mod switch;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::installation::Installation;
use crate::runtime::{Boot, BrokerRecord, Context, OutputFormat, print_json, print_text, table};

/// Flags of `ledger broker`.
#[derive(Debug, Clone, Args)]
pub struct BrokerArgs {
    #[command(subcommand)]
    command: Option<BrokerCommand>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_BROKER_OUTPUT")]
    output: OutputFormat,
}

#[derive(Debug, Clone, Subcommand)]
enum BrokerCommand {
    /// Make the configured broker the broker of this database, or accept another number of partitions
    #[command(
        after_help = "Stop every relay and consumer first. The rows of the outbox stay and are published to the new broker, in order. The positions are removed, because offsets of one broker mean nothing in another: consumers read the new topics from their first record, and an event that is assessed already changes nothing. The switch is refused while a relay or a consumer runs, and while an event in the old broker is not assessed.\n\nExamples:\n  ledger broker switch --dry-run\n  LEDGER_BROKER__KIND=kafka LEDGER_BROKER__KAFKA__BOOTSTRAP_SERVERS=localhost:9092 ledger broker switch --yes"
    )]
    Switch(switch::SwitchArgs),
}

/// Runs the command.
pub async fn run(context: Context, args: BrokerArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Some(BrokerCommand::Switch(switch)) => switch::run(&context, switch).await,
        None => show(&context, args.output).await,
    }
}

async fn show(context: &Context, output: OutputFormat) -> anyhow::Result<ExitCode> {
    let mut connection = Boot::new(context, "broker").connect().await?;
    let installation = Installation::read(context, &mut connection).await?;
    let BrokerRecord { broker, topics } = BrokerRecord::read(&mut connection).await?;
    if output == OutputFormat::Json {
        let topics: Vec<_> = topics
            .iter()
            .map(|topic| serde_json::json!({ "topic": topic.topic, "partitions": topic.partitions }))
            .collect();
        let result = serde_json::json!({
            "recorded": broker.is_some(),
            "generation": broker.as_ref().map(|broker| broker.generation),
            "moved_from": broker.as_ref().and_then(|broker| broker.moved_from.as_deref()),
            "recorded_at": broker.as_ref().map(|broker| broker.recorded_at),
            "recorded_by": broker.as_ref().map(|broker| &broker.recorded_by),
            "topics": topics,
        });
        print_json(&installation.json(result)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    installation.print(output)?;
    let Some(broker) = broker else { return Ok(ExitCode::SUCCESS) };
    let from = broker.moved_from.map(|from| format!(", moved from {from}")).unwrap_or_default();
    print_text(format_args!("recorded by {} at {}{from}", broker.recorded_by, broker.recorded_at))?;
    let mut rows = table(["topic", "partitions"]);
    for topic in topics {
        rows.add_row([topic.topic, topic.partitions.to_string()]);
    }
    print_text(rows)?;
    Ok(ExitCode::SUCCESS)
}
