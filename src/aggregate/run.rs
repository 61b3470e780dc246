//! One bounded run: takes the lease, lists the days, rebuilds each in a transaction of its own, records how it ended.

use std::time::SystemTime;

use anyhow::Context as _;
use chrono::NaiveDate;

use crate::{
    repository::{
        self, Connection, RepositoryError, facts,
        facts::runs::{self, AggregateRun},
        leases::{self, Lease},
    },
    runtime::{Context, progress_bar},
};

/// The lease that one instance at a time holds for a run.
pub const LEASE: &str = "aggregate";

const PROGRESS: &str = "{bar:30} {pos}/{len} days, {msg}, {eta} left";
const STOPPED: &str = "asked to stop; run it again for the days that are left";

/// Which days a run rebuilds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those with marks.
    Touched,
    /// Those from `from` to `to`, both included, marked or not. None: no bound.
    Range {
        /// First date.
        from: Option<NaiveDate>,
        /// Last date.
        to: Option<NaiveDate>,
    },
    /// All.
    Full,
}

impl Scope {
    fn mode(self) -> &'static str {
        match self {
            Self::Touched => "touched",
            Self::Range { .. } => "range",
            Self::Full => "full",
        }
    }

    async fn days(self, connection: &mut Connection) -> Result<Vec<NaiveDate>, RepositoryError> {
        match self {
            Self::Touched => facts::marked_days(connection).await,
            Self::Range { from, to } => facts::days_between(connection, from, to).await,
            Self::Full => facts::days_between(connection, None, None).await,
        }
    }
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is recorded; `error` says whether and why it failed.
    Ran(AggregateRun),
    /// Another instance is at work; nothing was done.
    Busy {
        /// Its name.
        owner: String,
    },
}

/// Runs once on connections of its own. Trouble after the start is told by the recorded run, unless the database is
/// gone and it cannot be recorded: then the next run does.
pub async fn run_once(context: &Context, scope: Scope) -> anyhow::Result<Outcome> {
    let mut connection = connect(context).await?;
    let Some(lease) = take_lease(context, &mut connection).await? else {
        let owner = leases::owner(&mut connection, LEASE).await?;
        return Ok(Outcome::Busy { owner: owner.unwrap_or_else(|| "another instance".to_owned()) });
    };
    let run_id = runs::start(&mut connection, &lease, scope.mode()).await?;
    let rebuilt = tokio::select! {
        rebuilt = rebuild(&mut connection, &lease, run_id, scope) => rebuilt.map_err(|error| error.to_string()),
        () = context.stop.requested() => Err(STOPPED.to_owned()),
    };
    let error = rebuilt.err();
    if let Some(error) = &error {
        // In the middle of a statement or broken; to drop it ends its transaction.
        connection = connect(context).await.with_context(|| format!("the run failed ({error}), and then"))?;
    }
    let run = runs::finish(&mut connection, run_id, error.as_deref()).await?;
    leases::release(&mut connection, &context.instance, &[LEASE.to_owned()]).await?;
    if run.error.is_none() {
        metrics::gauge!("ledger_aggregate_last_success_timestamp_seconds").set(unix_time());
    }
    Ok(Outcome::Ran(run))
}

async fn connect(context: &Context) -> Result<Connection, RepositoryError> {
    let timeout = context.config.aggregate.statement_timeout;
    repository::connect_for_long_statements(&context.config.database, "aggregate", timeout).await
}

/// No group shares this lease and nothing renews it in the background: each day's transaction does, and while that
/// runs the lease's row is locked, so nobody can take it however long the day is.
async fn take_lease(
    context: &Context,
    connection: &mut Connection,
) -> Result<Option<Lease>, RepositoryError> {
    let (names, ttl) = ([LEASE.to_owned()], context.config.aggregate.lease_ttl);
    leases::create(connection, &names).await?;
    let taken = leases::take(connection, &context.instance, &names, 1, ttl).await?;
    let lease =
        |taken: leases::OwnedLease| Lease::new(taken.name, context.instance.to_string(), taken.epoch, ttl);
    Ok(taken.into_iter().next().map(lease))
}

async fn rebuild(
    connection: &mut Connection,
    lease: &Lease,
    run_id: i64,
    scope: Scope,
) -> Result<(), RepositoryError> {
    let days = scope.days(connection).await?;
    let bar = progress_bar(u64::try_from(days.len()).unwrap_or(u64::MAX), PROGRESS);
    for day in days {
        bar.set_message(day.to_string());
        let rebuilt = facts::rebuild_day(connection, lease, run_id, day).await?;
        metrics::counter!("ledger_aggregate_days_total").increment(1);
        tracing::debug!(%day, transactions = rebuilt.transactions, accounts = rebuilt.account_days, "rebuilt");
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn unix_time() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
