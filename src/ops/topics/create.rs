//! `ledger topics create`: creates missing topics from the configuration. Never changes an existing topic.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{super::installation::Installation, age, bytes, differences};
use crate::{
    broker::{BrokerError, SharedBroker, TopicSpec},
    runtime::{OutputFormat, print_json, print_text, table},
};

/// Flags of `ledger topics create`.
#[derive(Debug, Clone, Args)]
pub(super) struct CreateArgs {
    /// Show the topics to create and create nothing
    #[arg(long, env = "LEDGER_TOPICS_CREATE_DRY_RUN")]
    dry_run: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_TOPICS_OUTPUT")]
    output: OutputFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Created,
    Exists,
    /// The topic has fewer partitions than configured.
    Refused,
}

#[derive(Serialize)]
struct TopicResult<'a> {
    topic: &'a str,
    outcome: Outcome,
    detail: Vec<String>,
}

pub(super) async fn run(
    broker: &SharedBroker,
    specs: &[TopicSpec],
    kind: &str,
    installation: &Installation,
    args: &CreateArgs,
) -> anyhow::Result<ExitCode> {
    installation.print(args.output)?;
    let mut done = Vec::with_capacity(specs.len());
    for spec in specs {
        done.push(create(broker, spec, kind, args.dry_run).await?);
    }
    print(args, installation, &done)?;
    let is_refused = done.iter().any(|done| done.outcome == Outcome::Refused);
    Ok(if is_refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn create<'a>(
    broker: &SharedBroker,
    spec: &'a TopicSpec,
    kind: &str,
    dry_run: bool,
) -> Result<TopicResult<'a>, BrokerError> {
    let topic = spec.name.as_str();
    if let Some(state) = broker.describe_topic(topic).await? {
        if state.partitions < spec.partitions {
            let error = BrokerError::TooFewPartitions {
                topic: topic.to_owned(),
                actual: state.partitions,
                expected: spec.partitions,
            };
            return Ok(TopicResult { topic, outcome: Outcome::Refused, detail: vec![error.to_string()] });
        }
        return Ok(TopicResult { topic, outcome: Outcome::Exists, detail: differences(spec, &state) });
    }
    if !dry_run {
        broker.ensure_topics(std::slice::from_ref(spec), true).await?;
        tracing::info!(topic, partitions = spec.partitions, "created the topic");
    }
    let mut detail = vec![format!("{} partitions", spec.partitions)];
    if kind == "kafka" {
        detail.push(format!("replication factor {}", spec.replication_factor));
        detail.push(format!("min.insync.replicas {}", spec.min_insync_replicas));
    }
    detail.push(format!("retention {}, {}", age(spec.retention), bytes(spec.retention)));
    Ok(TopicResult { topic, outcome: Outcome::Created, detail })
}

fn print(args: &CreateArgs, installation: &Installation, done: &[TopicResult<'_>]) -> anyhow::Result<()> {
    if args.output == OutputFormat::Json {
        let result = serde_json::json!({ "dry_run": args.dry_run, "items": done });
        print_json(&installation.json(result)?)?;
        return Ok(());
    }
    let mut rows = table(["topic", "result", "detail"]).wrapping(["detail"]);
    for TopicResult { topic, outcome, detail } in done {
        let word = match (outcome, detail.is_empty()) {
            (Outcome::Created, _) if args.dry_run => "would be created",
            (Outcome::Created, _) => "created",
            (Outcome::Exists, true) => "exists as configured",
            (Outcome::Exists, false) => "exists with other settings",
            (Outcome::Refused, _) => "refused",
        };
        rows.add_row([*topic, word, &detail.join("\n")]);
    }
    print_text(&rows)?;
    Ok(())
}
