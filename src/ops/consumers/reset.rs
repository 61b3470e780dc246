//! `ledger consumers reset`: moves the positions of a group.
//!
//! Guarantees: one database transaction revokes the leases of the partitions and moves the positions. Until it commits,
//! the leases stay locked. A running consumer can therefore neither write from its old position nor start again before
//! the new position is there. It need not be stopped, and continues from the new position. All partitions move, or none.
//! A reset ends a halt: the new position belongs to the log that the partition has now.
//!
//! Deliberately absent: the removal of assessments. An event that is delivered again keeps its assessment.

use std::process::ExitCode;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use super::super::{current_user::user_and_host, installation::Installation, time_argument};
use crate::{
    broker::{OffsetRange, SharedBroker},
    event::TRANSACTIONS_TOPIC,
    repository::{
        Connection, RepositoryError, broker_identity, dead_letters, leases,
        positions::{self, PartitionName},
        transaction,
    },
    runtime::{Boot, Context, OutputFormat, print_json, print_text, table},
};

/// Flags of `ledger consumers reset`.
#[derive(Debug, Clone, Args)]
pub(super) struct ResetArgs {
    /// The consumer group
    #[arg(long, env = "LEDGER_CONSUMERS_GROUP", value_name = "NAME")]
    group: String,
    /// The topic
    #[arg(long, env = "LEDGER_CONSUMERS_RESET_TOPIC", value_name = "NAME", default_value = TRANSACTIONS_TOPIC)]
    topic: String,
    /// Only this partition; by default all
    #[arg(long, env = "LEDGER_CONSUMERS_RESET_PARTITION", value_name = "NUMBER")]
    partition: Option<i32>,
    /// The new position: earliest, latest, an offset, or the first record since a time, a day or a duration ago (2h)
    #[arg(long, env = "LEDGER_CONSUMERS_RESET_TO", value_name = "POSITION", value_parser = parse_target)]
    to: Target,
    /// Show the moves and move nothing
    #[arg(long, env = "LEDGER_CONSUMERS_RESET_DRY_RUN")]
    dry_run: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_CONSUMERS_OUTPUT")]
    output: OutputFormat,
}

/// The new position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Earliest,
    Latest,
    Offset(i64),
    At(DateTime<Utc>),
}

fn parse_target(text: &str) -> Result<Target, String> {
    match text {
        "earliest" => Ok(Target::Earliest),
        "latest" => Ok(Target::Latest),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) && !number.is_empty() => {
            number.parse().map(Target::Offset).map_err(|error| error.to_string())
        }
        text => time_argument::parse(text).map(Target::At).map_err(|_| {
            "expected earliest, latest, an offset, a time (2026-11-24T10:00:00Z), a day (2026-11-24) or a duration ago (2h)"
                .to_owned()
        }),
    }
}

#[derive(Debug, Serialize)]
struct Move {
    partition: i32,
    from: Option<i64>,
    to: i64,
    /// The owner of the partition, which was fenced.
    taken_from: Option<String>,
}

impl Move {
    /// Describes the effect of the move.
    fn effect(&self) -> String {
        match self.from.map(|from| self.to - from) {
            None => String::new(),
            Some(0) => "unchanged".to_owned(),
            Some(back) if back < 0 => format!("{} delivered again", -back),
            Some(forward) => format!("{forward} skipped"),
        }
    }
}

pub(super) async fn run(
    mut boot: Boot<'_>,
    context: &Context,
    connection: &mut Connection,
    installation: &Installation,
    args: &ResetArgs,
) -> anyhow::Result<ExitCode> {
    let ResetArgs { group, topic, .. } = args;
    let known = positions::list(connection, Some(group)).await?;
    anyhow::ensure!(
        *group == context.config.consume_risk.group || !known.is_empty(),
        "there is no consumer group {group}"
    );
    let broker = boot.broker().await?;
    let wanted = targets(&broker, args).await?;
    let moves = match args.dry_run {
        true => {
            let at = |partition| known.iter().find(|row| row.topic == *topic && row.partition == partition);
            let from = |partition| at(partition).map(|row| row.next_offset);
            let moves = wanted.into_iter().map(|Wanted { name, to, .. }| Move {
                from: from(name.partition),
                partition: name.partition,
                to,
                taken_from: None,
            });
            moves.collect()
        }
        false => carry_out(connection, boot.broker_generation(), &wanted).await?,
    };
    if !args.dry_run {
        log_moves(args, &moves);
        mirror(&broker, args, &moves).await;
    }
    print(args, installation, &moves)?;
    Ok(ExitCode::SUCCESS)
}

/// A new position, and the log that it belongs to.
struct Wanted {
    name: PartitionName,
    to: i64,
    log_id: Option<Uuid>,
}

/// Returns the partitions to move and their new positions, by partition number.
async fn targets(broker: &SharedBroker, args: &ResetArgs) -> anyhow::Result<Vec<Wanted>> {
    let count = broker.partitions(&args.topic).await?;
    let partitions = match args.partition {
        None => (0..count).collect(),
        Some(partition) => {
            let topic = &args.topic;
            anyhow::ensure!(
                (0..count).contains(&partition),
                "{topic} has partitions 0 to {}, not {partition}",
                count - 1
            );
            vec![partition]
        }
    };
    let mut targets = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let log_id = broker.log_id(&args.topic, partition).await?;
        let range = broker.offset_range(&args.topic, partition).await?;
        let to = match args.to {
            Target::Earliest => range.earliest,
            Target::Latest => range.latest,
            Target::Offset(offset) => within(range, offset, &args.topic, partition)?,
            Target::At(moment) => broker.offset_at(&args.topic, partition, moment).await?,
        };
        let (group, topic) = (args.group.clone(), args.topic.clone());
        targets.push(Wanted { name: PartitionName { group, topic, partition }, to, log_id });
    }
    Ok(targets)
}

fn within(range: OffsetRange, offset: i64, topic: &str, partition: i32) -> anyhow::Result<i64> {
    let OffsetRange { earliest, latest } = range;
    anyhow::ensure!(
        (earliest..=latest).contains(&offset),
        "{topic}/{partition} holds {earliest} to {latest}, and {offset} is outside; nothing was moved"
    );
    Ok(offset)
}

/// Revokes the leases and moves the positions in one database transaction. Moves nothing if the broker was
/// switched in between, because the offsets belong to the earlier broker.
async fn carry_out(
    connection: &mut Connection,
    generation: Option<i64>,
    wanted: &[Wanted],
) -> anyhow::Result<Vec<Move>> {
    let names: Vec<String> = wanted.iter().map(|wanted| wanted.name.lease_name()).collect();
    let names = &names;
    let moves = transaction("reset positions", connection, async |connection: &mut Connection| {
        let recorded = broker_identity::hold(connection).await?;
        if recorded.map(|recorded| recorded.generation) != generation {
            return Err(RepositoryError::BrokerSwitched);
        }
        let revoked = leases::revoke(connection, names).await?;
        let mut moves = Vec::with_capacity(wanted.len());
        for Wanted { name, to, log_id } in wanted {
            let before = positions::reset(connection, name, *to, *log_id).await?;
            let log_before = before.and_then(|before| before.log_id);
            if log_before.zip(*log_id).is_some_and(|(before, now)| before != now) {
                dead_letters::leave_log(connection, name).await?;
            }
            let lease_name = name.lease_name();
            let taken_from = revoked.iter().find(|(lease, _)| *lease == lease_name);
            moves.push(Move {
                partition: name.partition,
                from: before.map(|before| before.next_offset),
                to: *to,
                taken_from: taken_from.map(|(_, owner)| owner.clone()),
            });
        }
        Ok(moves)
    })
    .await
    .context("nothing was moved")?;
    Ok(moves)
}

/// Logs one line per partition, for the audit.
fn log_moves(args: &ResetArgs, moves: &[Move]) {
    let by = user_and_host();
    for moved in moves {
        let taken_from = moved.taken_from.as_deref();
        tracing::info!(
            group = args.group,
            topic = args.topic,
            partition = moved.partition,
            from = moved.from,
            to = moved.to,
            taken_from,
            by,
            "position reset"
        );
    }
}

/// Mirrors the positions to the broker's own tools at once, also while no consumer runs.
async fn mirror(broker: &SharedBroker, args: &ResetArgs, moves: &[Move]) {
    let positions: Vec<(i32, i64)> = moves.iter().map(|moved| (moved.partition, moved.to)).collect();
    if let Err(error) = broker.mirror_positions(&args.group, &args.topic, &positions).await {
        tracing::warn!(%error, "the broker's own tools still show the old positions");
    }
}

fn print(args: &ResetArgs, installation: &Installation, moves: &[Move]) -> anyhow::Result<()> {
    if args.output == OutputFormat::Json {
        print_json(&installation.json(serde_json::json!({
            "dry_run": args.dry_run, "group": args.group, "topic": args.topic, "items": moves,
        }))?)?;
        return Ok(());
    }
    installation.print(args.output)?;
    let mut rows = table(["group", "topic", "partition", "from", "to", "effect", "taken from"])
        .wrapping(["effect"])
        .optional(["group", "taken from"]);
    for moved in moves {
        rows.add_row([
            args.group.clone(),
            args.topic.clone(),
            moved.partition.to_string(),
            moved.from.map_or_else(|| "none".to_owned(), |from| from.to_string()),
            moved.to.to_string(),
            moved.effect(),
            moved.taken_from.clone().unwrap_or_default(),
        ]);
    }
    print_text(&rows)?;
    if args.dry_run {
        print_text("dry run: nothing was moved")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_word_an_offset_or_a_time() {
        assert_eq!(parse_target("earliest"), Ok(Target::Earliest));
        assert_eq!(parse_target("1200"), Ok(Target::Offset(1200)));
        assert!(matches!(parse_target("2026-11-24"), Ok(Target::At(_))));
        assert!(matches!(parse_target("15m"), Ok(Target::At(_))));
        for wrong in ["", "first", "-5", "99999999999999999999"] {
            parse_target(wrong).expect_err(wrong);
        }
    }
}
