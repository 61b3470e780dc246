//! `ledger consumers`: the position, owner and lag of each consumer group in each partition.
//!
//! Positions and owners come from the database, offsets from the broker. The two are read one after the other, so the lag
//! may be off by the records in between. During an outage of the broker the command prints the database's part.

mod forget;
mod reset;

use std::{collections::HashMap, process::ExitCode};

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use futures::{StreamExt, stream};
use serde::Serialize;

use super::installation::Installation;
use crate::{
    broker::{BrokerError, OffsetRange, SharedBroker},
    event::TRANSACTIONS_TOPIC,
    repository::{
        Connection,
        leases::{self, LeaseState},
        positions::{self, PartitionName, PositionRow},
    },
    runtime::{Boot, BrokerRecord, Context, OutputFormat, print_json, print_text, table},
};

/// How many requests go to the broker in parallel.
const REQUESTS_MAX: usize = 8;

/// Flags of `ledger consumers`.
#[derive(Debug, Clone, Args)]
pub struct ConsumersArgs {
    #[command(subcommand)]
    command: Option<ConsumersCommand>,
    /// Only this consumer group
    #[arg(long, env = "LEDGER_CONSUMERS_GROUP", value_name = "NAME")]
    group: Option<String>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_CONSUMERS_OUTPUT")]
    output: OutputFormat,
}

#[derive(Debug, Clone, Subcommand)]
enum ConsumersCommand {
    /// Remove the positions of a group that is no longer used; refused while one of its consumers runs
    #[command(
        after_help = "The positions of an unused group keep the PostgreSQL broker from removing old records, and `ledger verify` reports them when retention has passed them. If the group starts again, it begins with the first record of each partition. Assessments are kept, so no transaction gets a second one.\n\nExamples:\n  ledger consumers forget old-group --dry-run\n  ledger consumers forget old-group"
    )]
    Forget(forget::ForgetArgs),
    /// Move the positions of a group; running consumers are fenced and continue from the new positions
    #[command(
        after_help = "Moving back delivers events again; existing assessments are kept, so no transaction gets a second one. Moving forward skips events; their transactions stay pending.\n\nExamples:\n  ledger consumers reset --group risk --to earliest --dry-run\n  ledger consumers reset --group risk --partition 3 --to 1200\n  ledger consumers reset --group risk --to 2026-11-24T10:00:00Z"
    )]
    Reset(reset::ResetArgs),
}

/// The state of a group in one partition.
struct PartitionState {
    name: PartitionName,
    position: Option<PositionRow>,
    lease: Option<LeaseState>,
    /// The offsets of the partition, if the broker reported them.
    range: Option<OffsetRange>,
}

impl PartitionState {
    /// Returns the number of records to handle. A group without a position will begin with the first record. The position
    /// of a halted group does not say which records it has handled, so all of them count.
    fn lag(&self) -> Option<i64> {
        let range = self.range?;
        let position = self.position.as_ref().filter(|_| !self.is_halted());
        let next = position.map_or(range.earliest, |position| position.next_offset);
        Some((range.latest - next).max(0))
    }

    /// Returns whether the partition waits for an operator. A consumer that has not noticed yet will halt, if the position is
    /// outside the offsets of the partition.
    fn is_halted(&self) -> bool {
        self.halt_reason().is_some()
    }

    fn halt_reason(&self) -> Option<String> {
        let position = self.position.as_ref()?;
        if position.halt_reason.is_some() {
            return position.halt_reason.clone();
        }
        let OffsetRange { earliest, latest } = self.range?;
        let next = position.next_offset;
        let is_outside = !(earliest..=latest).contains(&next);
        is_outside.then(|| format!("its position is {next}, but the partition holds {earliest} to {latest}"))
    }

    fn owner(&self) -> Option<&str> {
        self.lease.as_ref()?.owner.as_deref()
    }

    fn remaining_seconds(&self) -> Option<f64> {
        self.lease.as_ref()?.remaining_seconds
    }

    fn label(&self) -> &'static str {
        let position = self.position.as_ref();
        match self.remaining_seconds() {
            _ if self.is_halted() => "halted",
            None => "unowned",
            Some(seconds) if seconds < 0.0 => "silent",
            Some(_) if position.is_some_and(|position| position.attempts > 0) => "retrying",
            Some(_) => "owned",
        }
    }
}

#[derive(Serialize)]
struct PartitionOut<'a> {
    group: &'a str,
    topic: &'a str,
    partition: i32,
    state: &'static str,
    owner: Option<&'a str>,
    lease_seconds: Option<f64>,
    epoch: Option<i64>,
    position: Option<i64>,
    earliest: Option<i64>,
    end: Option<i64>,
    lag: Option<i64>,
    attempts: i32,
    interrupted: bool,
    halted: bool,
    halt_reason: Option<String>,
    halted_at: Option<String>,
    moved_at: Option<String>,
}

impl<'a> From<&'a PartitionState> for PartitionOut<'a> {
    fn from(state: &'a PartitionState) -> Self {
        let position = state.position.as_ref();
        Self {
            group: &state.name.group,
            topic: &state.name.topic,
            partition: state.name.partition,
            state: state.label(),
            owner: state.owner(),
            lease_seconds: state.remaining_seconds(),
            epoch: state.lease.as_ref().map(|lease| lease.epoch),
            position: position.map(|position| position.next_offset),
            earliest: state.range.map(|range| range.earliest),
            end: state.range.map(|range| range.latest),
            lag: state.lag(),
            attempts: position.map_or(0, |position| position.attempts),
            interrupted: position.is_some_and(|position| position.interrupted),
            halted: state.is_halted(),
            halt_reason: state.halt_reason(),
            halted_at: position.and_then(|position| position.halted_at).map(rfc3339),
            moved_at: position.map(|position| rfc3339(position.updated_at)),
        }
    }
}

fn rfc3339(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Runs the command. The exit code is 1 if the broker does not report the offsets of the partitions.
pub async fn run(context: Context, args: ConsumersArgs) -> anyhow::Result<ExitCode> {
    let mut boot = Boot::new(&context, "consumers");
    let mut connection = boot.connect().await?;
    let installation = Installation::read(&context, &mut connection).await?;
    BrokerRecord::read(&mut connection).await?.check_kind(&context.config)?;
    match &args.command {
        Some(ConsumersCommand::Forget(forget)) => {
            return forget::run(&mut connection, &installation, forget).await;
        }
        Some(ConsumersCommand::Reset(reset)) => {
            return reset::run(boot, &context, &mut connection, &installation, reset).await;
        }
        None => {}
    }
    let (broker, mut failure) = match boot.broker().await {
        Ok(broker) => (Some(broker), None),
        Err(error) => (None, Some(error)),
    };
    let names = names(&context, &mut connection, broker.as_ref(), args.group.as_deref()).await?;
    anyhow::ensure!(
        args.group.is_none() || !names.is_empty(),
        "there is no consumer group {}",
        args.group.unwrap_or_default()
    );
    let mut partitions = partitions(&mut connection, names).await?;
    if let Some(broker) = broker {
        failure = add_ranges(&broker, &mut partitions).await;
    }
    installation.print(args.output)?;
    match args.output {
        OutputFormat::Json => {
            let items: Vec<PartitionOut> = partitions.iter().map(PartitionOut::from).collect();
            print_json(&installation.json(serde_json::json!({ "items": items }))?)?;
        }
        OutputFormat::Table => print_table(&partitions)?,
    }
    match failure {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => Err(error).context("the broker does not report the offsets of the partitions"),
    }
}

/// Returns every partition with a position of a group, and the partitions that the configured group has not begun.
async fn names(
    context: &Context,
    connection: &mut Connection,
    broker: Option<&SharedBroker>,
    group: Option<&str>,
) -> anyhow::Result<Vec<PartitionName>> {
    let rows = positions::list(connection, group).await?;
    let known = rows.into_iter().map(|row| PartitionName {
        group: row.consumer_group,
        topic: row.topic,
        partition: row.partition,
    });
    let mut names: Vec<PartitionName> = known.collect();
    let configured = &context.config.consume_risk.group;
    if let Some(broker) = broker
        && group.is_none_or(|group| group == configured)
        && let Ok(count) = broker.partitions(TRANSACTIONS_TOPIC).await
    {
        for partition in 0..count {
            let name =
                PartitionName { group: configured.clone(), topic: TRANSACTIONS_TOPIC.to_owned(), partition };
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names.sort_by(|a, b| (&a.group, &a.topic, a.partition).cmp(&(&b.group, &b.topic, b.partition)));
    Ok(names)
}

async fn partitions(
    connection: &mut Connection,
    names: Vec<PartitionName>,
) -> anyhow::Result<Vec<PartitionState>> {
    let lease_names: Vec<String> = names.iter().map(PartitionName::lease_name).collect();
    let leases = leases::states(connection, &lease_names).await?;
    let mut leases: HashMap<String, LeaseState> =
        leases.into_iter().map(|lease| (lease.name.clone(), lease)).collect();
    let rows = positions::list(connection, None).await?;
    let mut positions: HashMap<PartitionName, PositionRow> = HashMap::with_capacity(rows.len());
    for row in rows {
        let name = PartitionName {
            group: row.consumer_group.clone(),
            topic: row.topic.clone(),
            partition: row.partition,
        };
        positions.insert(name, row);
    }
    let state = |name: PartitionName| PartitionState {
        position: positions.remove(&name),
        lease: leases.remove(&name.lease_name()),
        range: None,
        name,
    };
    Ok(names.into_iter().map(state).collect())
}

/// Adds the offsets of the partitions, and returns the first error.
async fn add_ranges(broker: &SharedBroker, partitions: &mut [PartitionState]) -> Option<anyhow::Error> {
    let asked: Vec<(String, i32)> =
        partitions.iter().map(|state| (state.name.topic.clone(), state.name.partition)).collect();
    let answers: Vec<Result<OffsetRange, BrokerError>> = stream::iter(asked)
        .map(|(topic, partition)| async move { broker.offset_range(&topic, partition).await })
        .buffered(REQUESTS_MAX)
        .collect()
        .await;
    let mut failure = None;
    for (state, answer) in partitions.iter_mut().zip(answers) {
        match answer {
            Ok(range) => state.range = Some(range),
            Err(error) => failure = failure.or(Some(error.into())),
        }
    }
    failure
}

fn print_table(partitions: &[PartitionState]) -> std::io::Result<()> {
    let headings = [
        "group",
        "topic",
        "partition",
        "state",
        "owner",
        "lease",
        "epoch",
        "position",
        "end",
        "lag",
        "attempts",
    ];
    let mut rows = table(headings).optional(["epoch", "attempts", "lease", "end", "owner", "group"]);
    let number = |number: Option<i64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    for state in partitions {
        let position = state.position.as_ref();
        let lease = state.remaining_seconds().map_or_else(String::new, |seconds| format!("{seconds:.1} s"));
        let next = position.map_or_else(|| "none".to_owned(), |position| position.next_offset.to_string());
        rows.add_row([
            state.name.group.clone(),
            state.name.topic.clone(),
            state.name.partition.to_string(),
            state.label().to_owned(),
            state.owner().unwrap_or_default().to_owned(),
            lease,
            state.lease.as_ref().map_or_else(String::new, |lease| lease.epoch.to_string()),
            next,
            number(state.range.map(|range| range.latest)),
            number(state.lag()),
            position.map_or(0, |position| position.attempts).to_string(),
        ]);
    }
    print_text(&rows)?;
    let is_known = partitions.iter().all(|state| state.range.is_some());
    let lag: i64 = partitions.iter().filter_map(PartitionState::lag).sum();
    let lag = if is_known { lag.to_string() } else { "unknown".to_owned() };
    print_text(format_args!("lag {lag} in {} partitions", partitions.len()))?;
    for state in partitions {
        let PartitionName { group, topic, partition } = &state.name;
        let Some(reason) = state.halt_reason() else { continue };
        let halted_at = state.position.as_ref().and_then(|position| position.halted_at);
        let since = halted_at.map_or_else(String::new, |moment| format!(" since {}", rfc3339(moment)));
        print_text(format_args!(
            "{} is halted{since}: {reason}; to continue from the first record that is left, run `ledger consumers reset --group \
             {group} --topic {topic} --partition {partition} --to earliest`",
            state.name
        ))?;
    }
    Ok(())
}
