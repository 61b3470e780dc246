//! `ledger consumers`: where each consumer group is in each partition, who owns it, and how far it is behind.
//!
//! Positions and owners are the database's, ends are the broker's; the two are read one after the other, so a lag is
//! right to within what happened in between. With the broker away, what the database knows is shown all the same.

mod forget;
mod reset;

use std::{collections::HashMap, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use futures::{StreamExt, stream};
use serde::Serialize;

use crate::{
    broker::{BrokerError, OffsetRange, SharedBroker},
    event::TRANSACTIONS_TOPIC,
    repository::{
        Connection,
        leases::{self, LeaseState},
        positions::{self, PartitionName, PositionRow},
    },
    runtime::{Boot, Context, OutputFormat, print_json, print_text, table},
};

/// Partitions that the broker is asked about at once.
const ASKED_AT_ONCE_MAX: usize = 8;

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
    /// Remove the positions of a group that was given up; refused while any of its consumers lives
    #[command(
        after_help = "A group that nobody runs any more keeps the PostgreSQL broker from removing old records, and `ledger verify` calls\nits positions wrong once retention has passed them. Should the group begin again, it begins with the first record\nthat is there; assessments are kept, so nothing is doubled.\n\nExamples:\n  ledger consumers forget old-group --dry-run\n  ledger consumers forget old-group"
    )]
    Forget(forget::ForgetArgs),
    /// Move a group's positions; consumers that run are fenced and go on from there by themselves
    #[command(
        after_help = "Moving back delivers events again: what has its assessment keeps it, so nothing is doubled. Moving forward skips:\nthe transactions in between stay pending.\n\nExamples:\n  ledger consumers reset --group risk --to earliest --dry-run\n  ledger consumers reset --group risk --partition 3 --to 1200\n  ledger consumers reset --group risk --to 2026-11-24T10:00:00Z"
    )]
    Reset(reset::ResetArgs),
}

/// A partition as a group sees it.
struct Place {
    name: PartitionName,
    position: Option<PositionRow>,
    lease: Option<LeaseState>,
    /// What the partition holds, if the broker says so.
    range: Option<OffsetRange>,
}

impl Place {
    /// A group that has not begun with a partition will begin with its first record.
    fn lag(&self) -> Option<i64> {
        let range = self.range?;
        let next = self.position.as_ref().map_or(range.earliest, |position| position.next_offset);
        Some((range.latest - next).max(0))
    }

    /// The consumer stands still, because its position is outside of what the partition holds.
    fn is_halted(&self) -> bool {
        let (Some(range), Some(position)) = (self.range, &self.position) else { return false };
        !(range.earliest..=range.latest).contains(&position.next_offset)
    }

    fn owner(&self) -> Option<&str> {
        self.lease.as_ref()?.owner.as_deref()
    }

    fn remaining_seconds(&self) -> Option<f64> {
        self.lease.as_ref()?.remaining_seconds
    }

    fn state(&self) -> &'static str {
        let position = self.position.as_ref();
        match self.remaining_seconds() {
            _ if self.is_halted() => "halted",
            None => "unowned",
            Some(seconds) if seconds < 0.0 => "silent",
            Some(_) if position.is_some_and(|position| position.attempts > 0) => "trying",
            Some(_) => "owned",
        }
    }
}

#[derive(Serialize)]
struct PlaceOut<'a> {
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
    moved_at: Option<String>,
}

impl<'a> From<&'a Place> for PlaceOut<'a> {
    fn from(place: &'a Place) -> Self {
        let position = place.position.as_ref();
        Self {
            group: &place.name.group,
            topic: &place.name.topic,
            partition: place.name.partition,
            state: place.state(),
            owner: place.owner(),
            lease_seconds: place.remaining_seconds(),
            epoch: place.lease.as_ref().map(|lease| lease.epoch),
            position: position.map(|position| position.next_offset),
            earliest: place.range.map(|range| range.earliest),
            end: place.range.map(|range| range.latest),
            lag: place.lag(),
            attempts: position.map_or(0, |position| position.attempts),
            interrupted: position.is_some_and(|position| position.interrupted),
            halted: place.is_halted(),
            moved_at: position
                .map(|position| position.updated_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)),
        }
    }
}

/// Runs the command. Exit code 1 where the broker does not say how far the partitions go.
pub async fn run(context: Context, args: ConsumersArgs) -> anyhow::Result<ExitCode> {
    let mut boot = Boot::new(&context, "consumers");
    let mut connection = boot.connect().await?;
    match &args.command {
        Some(ConsumersCommand::Forget(forget)) => return forget::run(&mut connection, forget).await,
        Some(ConsumersCommand::Reset(reset)) => {
            return reset::run(boot, &context, &mut connection, reset).await;
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
    let mut places = places(&mut connection, names).await?;
    if let Some(broker) = broker {
        failure = ask_ranges(&broker, &mut places).await;
    }
    match args.output {
        OutputFormat::Json => {
            let items: Vec<PlaceOut> = places.iter().map(PlaceOut::from).collect();
            print_json(&serde_json::json!({ "items": items }))?;
        }
        OutputFormat::Table => print_table(&places)?,
    }
    match failure {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => Err(error).context("the broker does not say how far the partitions go"),
    }
}

/// Every partition that a group has a position in, and every one that the configured group has yet to begin with.
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

async fn places(connection: &mut Connection, names: Vec<PartitionName>) -> anyhow::Result<Vec<Place>> {
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
    let place = |name: PartitionName| Place {
        position: positions.remove(&name),
        lease: leases.remove(&name.lease_name()),
        range: None,
        name,
    };
    Ok(names.into_iter().map(place).collect())
}

/// Fills in what the partitions hold; answers the first error. A topic that is gone holds nothing.
async fn ask_ranges(broker: &SharedBroker, places: &mut [Place]) -> Option<anyhow::Error> {
    let asked: Vec<(String, i32)> =
        places.iter().map(|place| (place.name.topic.clone(), place.name.partition)).collect();
    let answers: Vec<Result<OffsetRange, BrokerError>> = stream::iter(asked)
        .map(|(topic, partition)| async move { broker.offset_range(&topic, partition).await })
        .buffered(ASKED_AT_ONCE_MAX)
        .collect()
        .await;
    let mut failure = None;
    for (place, answer) in places.iter_mut().zip(answers) {
        match answer {
            Ok(range) => place.range = Some(range),
            Err(error) => failure = failure.or(Some(error.into())),
        }
    }
    failure
}

fn print_table(places: &[Place]) -> std::io::Result<()> {
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
        "tries",
    ];
    let mut rows = table(headings);
    let number = |number: Option<i64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    for place in places {
        let position = place.position.as_ref();
        let lease = place.remaining_seconds().map_or_else(String::new, |seconds| format!("{seconds:.1} s"));
        let next = position.map_or_else(|| "none".to_owned(), |position| position.next_offset.to_string());
        rows.add_row([
            place.name.group.clone(),
            place.name.topic.clone(),
            place.name.partition.to_string(),
            place.state().to_owned(),
            place.owner().unwrap_or_default().to_owned(),
            lease,
            place.lease.as_ref().map_or_else(String::new, |lease| lease.epoch.to_string()),
            next,
            number(place.range.map(|range| range.latest)),
            number(place.lag()),
            position.map_or(0, |position| position.attempts).to_string(),
        ]);
    }
    print_text(&rows)?;
    let is_known = places.iter().all(|place| place.range.is_some());
    let lag: i64 = places.iter().filter_map(Place::lag).sum();
    let lag = if is_known { lag.to_string() } else { "unknown".to_owned() };
    print_text(format_args!("lag {lag} in {} partitions", places.len()))?;
    for place in places.iter().filter(|place| place.is_halted()) {
        let PartitionName { group, topic, partition } = &place.name;
        let (Some(range), Some(position)) = (place.range, &place.position) else { continue };
        print_text(format_args!(
            "{} is halted: it is at {}, but the partition holds {} to {}; `ledger consumers reset --group {group} \
             --topic {topic} --partition {partition} --to earliest` goes on from what is there",
            place.name, position.next_offset, range.earliest, range.latest
        ))?;
    }
    Ok(())
}
