//! `ledger topics`: compares the topics of the broker with the configuration.

mod create;

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::installation::Installation;
use crate::{
    broker::{self, OffsetRange, Retention, SharedBroker, TopicProblems, TopicSpec, TopicState, check_topic},
    config::BrokerKind,
    runtime::{Boot, Context, OutputFormat, print_json, print_text, table},
};

/// Flags of `ledger topics`.
#[derive(Debug, Clone, Args)]
pub struct TopicsArgs {
    #[command(subcommand)]
    command: Option<TopicsCommand>,
    /// Print one line per partition, with its first and next offset
    #[arg(long, env = "LEDGER_TOPICS_PARTITIONS")]
    partitions: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_TOPICS_OUTPUT")]
    output: OutputFormat,
}

#[derive(Debug, Clone, Subcommand)]
enum TopicsCommand {
    /// Create missing topics as broker.topics says; existing topics are not changed
    #[command(
        after_help = "If a topic has fewer partitions than configured, the exit code is 1. Other different settings are reported.\n\nExamples:\n  ledger topics create --dry-run\n  LEDGER_BROKER__TOPICS__REPLICATION_FACTOR=3 LEDGER_BROKER__TOPICS__MIN_INSYNC_REPLICAS=2 ledger topics create"
    )]
    Create(create::CreateArgs),
}

/// The configuration of a topic and its state in the broker.
struct Topic {
    spec: TopicSpec,
    state: Option<TopicState>,
    ranges: Vec<OffsetRange>,
}

impl Topic {
    fn records(&self) -> Option<i64> {
        self.state.as_ref()?;
        Some(self.ranges.iter().map(|range| range.latest - range.earliest).sum())
    }
}

#[derive(Serialize)]
struct TopicOut<'a> {
    topic: &'a str,
    exists: bool,
    partitions: Option<i32>,
    replication_factor: Option<i16>,
    min_insync_replicas: Option<i16>,
    /// Null if the broker does not report it; 0 means for ever.
    retention_seconds: Option<u64>,
    /// Null if the broker does not report it; 0 means no limit.
    retention_bytes: Option<u64>,
    cleanup_policy: Option<&'a str>,
    max_message_bytes: Option<usize>,
    records: Option<i64>,
    differences: Vec<String>,
    /// The lines with which a role refuses the topic or warns at its start.
    problems: Vec<String>,
    offsets: Vec<PartitionOut>,
}

#[derive(Serialize)]
struct PartitionOut {
    partition: usize,
    earliest: i64,
    latest: i64,
}

impl<'a> From<&'a Topic> for TopicOut<'a> {
    fn from(topic: &'a Topic) -> Self {
        let state = topic.state.as_ref();
        let retention = state.and_then(|state| state.retention);
        Self {
            topic: &topic.spec.name,
            exists: state.is_some(),
            partitions: state.map(|state| state.partitions),
            replication_factor: state.and_then(|state| state.replication_factor),
            min_insync_replicas: state.and_then(|state| state.min_insync_replicas),
            retention_seconds: retention.map(|retention| retention.age.map_or(0, |age| age.as_secs())),
            retention_bytes: retention.map(|retention| retention.bytes.unwrap_or(0)),
            cleanup_policy: state.and_then(|state| state.cleanup_policy.as_deref()),
            max_message_bytes: state.and_then(|state| state.message_bytes_max),
            records: topic.records(),
            differences: state.map(|state| differences(&topic.spec, state)).unwrap_or_default(),
            problems: state.map(|state| problems(&topic.spec, state)).unwrap_or_default(),
            offsets: topic
                .ranges
                .iter()
                .enumerate()
                .map(|(partition, range)| PartitionOut {
                    partition,
                    earliest: range.earliest,
                    latest: range.latest,
                })
                .collect(),
        }
    }
}

/// Runs the command.
pub async fn run(context: Context, args: TopicsArgs) -> anyhow::Result<ExitCode> {
    let mut boot = Boot::new(&context, "topics");
    let installation = Installation::read(&context, &mut boot.connect().await?).await?;
    let broker = boot.broker().await?;
    let specs = broker::topic_specs(&context.config);
    let kind = context.config.broker.kind.name();
    if let Some(TopicsCommand::Create(create)) = &args.command {
        return create::run(&broker, &specs, kind, &installation, create).await;
    }
    let mut topics = Vec::with_capacity(specs.len());
    for spec in specs {
        topics.push(describe(&broker, spec, context.config.broker.kind).await?);
    }
    installation.print(args.output)?;
    match args.output {
        OutputFormat::Json => {
            let items: Vec<TopicOut> = topics.iter().map(TopicOut::from).collect();
            print_json(&installation.json(serde_json::json!({ "items": items }))?)?;
        }
        OutputFormat::Table if args.partitions => print_partitions(&topics)?,
        OutputFormat::Table => print_topics(&topics, kind)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn describe(broker: &SharedBroker, spec: TopicSpec, kind: BrokerKind) -> anyhow::Result<Topic> {
    let mut state = broker.describe_topic(&spec.name).await?;
    if let Some(state) = &mut state
        && kind == BrokerKind::Postgres
    {
        // The relay applies the configured retention. The PostgreSQL broker has no setting of its own.
        state.retention = Some(spec.retention);
    }
    let mut ranges = Vec::new();
    for partition in 0..state.as_ref().map_or(0, |state| state.partitions) {
        let range = broker.offset_range(&spec.name, partition).await;
        ranges.push(range.with_context(|| format!("the offsets of {}/{partition}", spec.name))?);
    }
    Ok(Topic { spec, state, ranges })
}

/// Describes the settings that differ from the configuration. Settings that the broker does not report count as equal.
fn differences(spec: &TopicSpec, state: &TopicState) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |name: &str, is: Option<String>, wanted: String| {
        if let Some(is) = is.filter(|is| *is != wanted) {
            differences.push(format!("{name} is {is}, configured {wanted}"));
        }
    };
    compare("partitions", Some(state.partitions.to_string()), spec.partitions.to_string());
    let factor = state.replication_factor.map(|factor| factor.to_string());
    compare("replication factor", factor, spec.replication_factor.to_string());
    let replicas = state.min_insync_replicas.map(|replicas| replicas.to_string());
    compare("min.insync.replicas", replicas, spec.min_insync_replicas.to_string());
    compare("retention", state.retention.map(age), age(spec.retention));
    compare("retention bytes", state.retention.map(bytes), bytes(spec.retention));
    compare("cleanup.policy", state.cleanup_policy.clone(), "delete".to_owned());
    differences
}

/// Returns the lines with which a role refuses the topic or warns at its start.
fn problems(spec: &TopicSpec, state: &TopicState) -> Vec<String> {
    let TopicProblems { refusal, warnings } = check_topic(spec, state);
    refusal.into_iter().chain(warnings).collect()
}

fn age(retention: Retention) -> String {
    retention
        .age
        .map_or_else(|| "for ever".to_owned(), |age| humantime::format_duration(seconds(age)).to_string())
}

/// Rounds down to whole seconds, because Kafka counts milliseconds and the table would show them.
fn seconds(age: Duration) -> Duration {
    if age.as_secs() > 0 { Duration::from_secs(age.as_secs()) } else { age }
}

fn bytes(retention: Retention) -> String {
    retention.bytes.map_or_else(|| "no limit".to_owned(), |bytes| bytes.to_string())
}

fn print_topics(topics: &[Topic], kind: &str) -> std::io::Result<()> {
    let headings = [
        "topic",
        "broker",
        "partitions",
        "replicas",
        "min in sync",
        "retention",
        "bytes",
        "cleanup",
        "max message",
        "records",
        "state",
    ];
    let mut rows = table(headings).optional([
        "max message",
        "broker",
        "bytes",
        "min in sync",
        "cleanup",
        "replicas",
        "retention",
    ]);
    for Topic { spec, state, .. } in topics {
        let Some(state) = state else {
            rows.add_row([&spec.name, kind, "", "", "", "", "", "", "", "", "missing"]);
            continue;
        };
        let text = |number: Option<i16>| number.map_or_else(String::new, |number| number.to_string());
        let is_fine = differences(spec, state).is_empty();
        rows.add_row([
            spec.name.clone(),
            kind.to_owned(),
            state.partitions.to_string(),
            text(state.replication_factor),
            text(state.min_insync_replicas),
            state.retention.map(age).unwrap_or_default(),
            state.retention.map(bytes).unwrap_or_default(),
            state.cleanup_policy.clone().unwrap_or_default(),
            state.message_bytes_max.map(|bytes| bytes.to_string()).unwrap_or_default(),
            topics_records(topics, &spec.name),
            if is_fine { "as configured" } else { "differs" }.to_owned(),
        ]);
    }
    print_text(&rows)?;
    for Topic { spec, state, .. } in topics {
        for difference in state.iter().flat_map(|state| differences(spec, state)) {
            print_text(format_args!("{}: {difference}", spec.name))?;
        }
    }
    for Topic { spec, state, .. } in topics {
        for problem in state.iter().flat_map(|state| problems(spec, state)) {
            print_text(problem)?;
        }
    }
    if topics.iter().any(|topic| topic.state.is_none()) {
        print_text("run `ledger topics create` to create the missing topics")?;
    }
    Ok(())
}

fn topics_records(topics: &[Topic], name: &str) -> String {
    let topic = topics.iter().find(|topic| topic.spec.name == name);
    topic.and_then(Topic::records).map_or_else(String::new, |records| records.to_string())
}

fn print_partitions(topics: &[Topic]) -> std::io::Result<()> {
    let mut rows = table(["topic", "partition", "earliest", "latest", "records"]);
    for topic in topics {
        for (partition, range) in topic.ranges.iter().enumerate() {
            rows.add_row([
                topic.spec.name.clone(),
                partition.to_string(),
                range.earliest.to_string(),
                range.latest.to_string(),
                (range.latest - range.earliest).to_string(),
            ]);
        }
    }
    print_text(&rows)
}
