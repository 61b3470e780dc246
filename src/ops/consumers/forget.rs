//! `ledger consumers forget`: removes the positions of a group that is no longer used.
//!
//! Guarantees:
//!
//! - It refuses while a consumer of the group runs. It checks that with the leases locked, so no consumer can start in
//!   between.
//! - It removes all positions, or none. A dry run writes nothing.
//! - A consumer that was frozen and resumes later cannot write, because its leases are revoked.
//!
//! Deliberately absent: the removal of the group's dead letters, which are evidence, and of its offsets in Kafka, which
//! Kafka expires by itself.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::super::{current_user::user_and_host, installation::Installation};
use crate::{
    repository::{
        Connection, leases,
        positions::{self, PartitionName, PositionRow},
        transaction,
    },
    runtime::{OutputFormat, print_json, print_text, table},
};

/// Flags of `ledger consumers forget`.
#[derive(Debug, Clone, Args)]
pub(super) struct ForgetArgs {
    /// The consumer group
    #[arg(value_name = "GROUP", env = "LEDGER_CONSUMERS_FORGET_GROUP")]
    group: String,
    /// Show the positions to remove and remove nothing
    #[arg(long, env = "LEDGER_CONSUMERS_FORGET_DRY_RUN")]
    dry_run: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_CONSUMERS_OUTPUT")]
    output: OutputFormat,
}

#[derive(Serialize)]
struct Forgotten<'a> {
    topic: &'a str,
    partition: i32,
    position: i64,
}

pub(super) async fn run(
    connection: &mut Connection,
    installation: &Installation,
    args: &ForgetArgs,
) -> anyhow::Result<ExitCode> {
    let group = args.group.as_str();
    let found = transaction("forget a group", connection, async |connection: &mut Connection| {
        let positions = positions::list(connection, Some(group)).await?;
        let names: Vec<String> = positions.iter().map(|row| name(row).lease_name()).collect();
        if !args.dry_run {
            // Only leases that have a row can be locked.
            leases::create(connection, &names).await?;
        }
        let mut alive = leases::lock_owners(connection, &names).await?;
        alive.extend(leases::members(connection, &format!("consume-risk/{group}")).await?);
        if alive.is_empty() && !args.dry_run {
            leases::revoke(connection, &names).await?;
            positions::forget(connection, group).await?;
        }
        Ok((positions, alive))
    })
    .await
    .context("nothing was removed")?;
    let (positions, mut alive) = found;
    alive.sort();
    alive.dedup();
    anyhow::ensure!(!positions.is_empty(), "there is no consumer group {group}");
    anyhow::ensure!(
        alive.is_empty(),
        "consumer group {group} is running, nothing was removed: stop {} first",
        alive.join(", ")
    );
    if !args.dry_run {
        log_removal(&positions);
    }
    print(args, installation, &positions)?;
    Ok(ExitCode::SUCCESS)
}

fn name(row: &PositionRow) -> PartitionName {
    PartitionName { group: row.consumer_group.clone(), topic: row.topic.clone(), partition: row.partition }
}

/// Logs one line per partition, for the audit.
fn log_removal(positions: &[PositionRow]) {
    let by = user_and_host();
    for row in positions {
        let (group, topic, partition) = (&row.consumer_group, &row.topic, row.partition);
        tracing::info!(group, topic, partition, position = row.next_offset, by, "position removed");
    }
}

fn print(args: &ForgetArgs, installation: &Installation, positions: &[PositionRow]) -> anyhow::Result<()> {
    if args.output == OutputFormat::Json {
        let items: Vec<Forgotten<'_>> = positions
            .iter()
            .map(|row| Forgotten { topic: &row.topic, partition: row.partition, position: row.next_offset })
            .collect();
        let result = serde_json::json!({ "dry_run": args.dry_run, "group": args.group, "items": items });
        print_json(&installation.json(result)?)?;
        return Ok(());
    }
    installation.print(args.output)?;
    let mut rows = table(["group", "topic", "partition", "position", "last moved"]);
    for row in positions {
        rows.add_row([
            row.consumer_group.clone(),
            row.topic.clone(),
            row.partition.to_string(),
            row.next_offset.to_string(),
            row.updated_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        ]);
    }
    print_text(&rows)?;
    let result = if args.dry_run { "dry run: nothing was removed" } else { "removed" };
    print_text(result)?;
    Ok(())
}
