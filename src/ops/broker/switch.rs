//! `ledger broker switch`: makes the configured broker the broker of the database, or accepts the number of partitions that
//! a topic has now.
//!
//! ```text
//! connect to the configured broker ─▶ plan ─▶ create missing topics ─▶ one database transaction:
//! lock the record ─▶ nothing runs? nothing unassessed? ─▶ revoke all leases, remove positions, write the new record
//! ```
//!
//! Guarantees:
//! - All or nothing. While the record is locked, no role takes a lease and no position is reset.
//! - No event is skipped: rows of the outbox are published to the new broker, and every event that only the old broker
//!   has is assessed or dead-lettered before the switch.
//! - No transaction is assessed twice: consumers begin with the first record, and an event with an assessment changes
//!   nothing.
//! - A role that slept through the switch writes nothing: its leases are revoked, and it gets no others.
//!
//! Deliberately absent: copies of the records of the old broker. Its topics stay as they are.

mod plan;

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Args;

use self::plan::{Plan, Standing, Target};
use super::super::{current_user::user_and_host, installation::Installation};
use crate::{
    broker::{self, SharedBroker},
    repository::{
        Connection, RepositoryError,
        broker_identity::{self, InFlight},
        dead_letters,
        leases::{self, LeaseState},
        positions, transaction,
    },
    runtime::{Boot, Context, EXIT_MISUSED, OutputFormat},
};

/// The search for unassessed transactions reads the whole ledger.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3600);
/// The roles that work with the broker. Their names begin the names of their leases.
const ROLES: [&str; 2] = ["relay", "consume-risk"];

/// Flags of `ledger broker switch`.
#[derive(Debug, Clone, Args)]
pub(super) struct SwitchArgs {
    /// Show the plan and change nothing
    #[arg(long, env = "LEDGER_BROKER_SWITCH_DRY_RUN")]
    dry_run: bool,
    /// Confirm the switch
    #[arg(long, env = "LEDGER_BROKER_SWITCH_YES")]
    yes: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_BROKER_OUTPUT")]
    output: OutputFormat,
}

pub(super) async fn run(context: &Context, args: &SwitchArgs) -> anyhow::Result<ExitCode> {
    let boot = Boot::new(context, "broker");
    let mut connection = boot.connect_for_long_statements(STATEMENT_TIMEOUT).await?;
    let installation = Installation::read(context, &mut connection).await?;
    let broker = boot.configured_broker().await?;
    let target = Target::read(&context.config, &broker).await?;
    let standing = standing(&mut connection, Locking::None).await?;
    let plan = Plan::new(&context.config, &target, &standing);
    if plan.is_done() {
        plan.print(args.output, &installation, "nothing to switch: this is the recorded broker")?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.dry_run {
        plan.print(args.output, &installation, "dry run: nothing was changed")?;
    }
    if let Some(refusal) = plan.refusal() {
        anyhow::bail!("nothing was changed: {refusal}");
    }
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes {
        let (from, to) = (&plan.from, &plan.to);
        eprintln!(
            "error: the broker would change from {from} to {to}; --dry-run shows the effects, --yes confirms"
        );
        return Ok(ExitCode::from(EXIT_MISUSED));
    }
    create_topics(context, &broker).await?;
    let target = Target::read(&context.config, &broker).await?;
    let plan = carry_out(context, &mut connection, &target).await?;
    let done = "switched; start relays and consumers with the settings of this broker";
    plan.print(args.output, &Installation::read(context, &mut connection).await?, done)?;
    Ok(ExitCode::SUCCESS)
}

async fn create_topics(context: &Context, broker: &SharedBroker) -> anyhow::Result<()> {
    let create = context.config.broker.create_topics;
    let specs = broker::topic_specs(&context.config);
    broker
        .ensure_topics(&specs, create)
        .await
        .context("nothing was changed: the topics are not as configured")
}

/// Whether [`standing`] keeps roles from starting until the database transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Locking {
    None,
    Exclusive,
}

/// Reads what decides about the switch. Under the lock it does not count what is in flight while roles run: the switch is
/// refused anyway, and they would wait for the count.
async fn standing(connection: &mut Connection, locking: Locking) -> Result<Standing, RepositoryError> {
    let recorded = match locking {
        Locking::None => broker_identity::read(connection).await?,
        Locking::Exclusive => broker_identity::lock(connection).await?,
    };
    let names = leases::names_of_roles(connection, &ROLES).await?;
    let mut running = match locking {
        Locking::None => live_owners(leases::states(connection, &names).await?),
        Locking::Exclusive => leases::lock_owners(connection, &names).await?,
    };
    running.extend(leases::members_of_roles(connection, &ROLES).await?);
    running.sort();
    running.dedup();
    let topics = broker_identity::topics(connection).await?;
    let in_flight = match locking {
        Locking::Exclusive if !running.is_empty() => InFlight::default(),
        _ => broker_identity::in_flight(connection).await?,
    };
    Ok(Standing { recorded, topics, in_flight, running })
}

fn live_owners(states: Vec<LeaseState>) -> Vec<String> {
    let live = states.into_iter().filter(|state| state.remaining_seconds.is_some_and(|left| left > 0.0));
    live.filter_map(|state| state.owner).collect()
}

/// Decides again under the lock and writes.
async fn carry_out(context: &Context, connection: &mut Connection, target: &Target) -> anyhow::Result<Plan> {
    let by = user_and_host();
    let by = by.as_str();
    let plan = transaction("switch the broker", connection, async |connection: &mut Connection| {
        let standing = standing(connection, Locking::Exclusive).await?;
        let plan = Plan::new(&context.config, target, &standing);
        if plan.refusal().is_none() {
            write(connection, target, &standing, by).await?;
        }
        Ok(plan)
    })
    .await
    .context("nothing was changed")?;
    if let Some(refusal) = plan.refusal() {
        anyhow::bail!("nothing was changed: {refusal}");
    }
    tracing::info!(
        from = plan.from,
        to = plan.to,
        outbox_rows = plan.outbox_rows,
        positions_removed = plan.positions_removed,
        by,
        "broker switched"
    );
    Ok(plan)
}

async fn write(
    connection: &mut Connection,
    target: &Target,
    standing: &Standing,
    by: &str,
) -> Result<(), RepositoryError> {
    let Some(recorded) = &standing.recorded else {
        // If a role records its broker at the same moment, the insert finds its row.
        return match broker_identity::insert(connection, &target.identity, by).await? {
            true => broker_identity::insert_topics(connection, &target.partitions, by).await,
            false => Err(RepositoryError::BrokerSwitched),
        };
    };
    let names = leases::names_of_roles(connection, &ROLES).await?;
    leases::revoke(connection, &names).await?;
    if recorded.identity == target.identity {
        broker_identity::raise_generation(connection).await?;
        let changed = target.changed_topics(&standing.topics);
        return broker_identity::change_topics(connection, &changed, by).await;
    }
    positions::forget_all(connection).await?;
    dead_letters::leave_all_logs(connection).await?;
    broker_identity::replace(connection, &target.identity, &recorded.identity.to_string(), by).await?;
    broker_identity::replace_topics(connection, &target.partitions, by).await
}
