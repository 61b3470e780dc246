//! One bounded run: takes the lease, lists the days, rebuilds each day or updates what its marks name, each in a database
//! transaction of its own, and records the result.

use anyhow::Context as _;
use chrono::{DateTime, NaiveDate};

use crate::{
    repository::{
        self, Connection, RepositoryError,
        facts::{
            self, DayPreview,
            runs::{self, AggregateRun, DayRebuilt},
        },
        leases::{self, Lease},
    },
    runtime::{Context, fail_point, progress_bar},
};

/// The lease that one instance at a time holds for a run.
pub const LEASE: &str = "aggregate";

/// How many marks one database transaction handles.
const MARKS_MAX: u16 = 10_000;
const PROGRESS: &str = "{bar:30} {pos}/{len} days, {msg}, {eta} left";
const STOPPED: &str = "stopped; the next run writes the remaining facts";

/// The days that a run works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What the marks name.
    Touched,
    /// The days from `from` to `to`, both included, with or without marks. None means no bound.
    Range {
        /// The first date.
        from: Option<NaiveDate>,
        /// The last date.
        to: Option<NaiveDate>,
    },
    /// All days.
    Full,
}

impl Scope {
    /// Returns the name that is stored with a run.
    pub(super) fn mode(self) -> &'static str {
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

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The run was made and recorded; `error` is set if it failed.
    Ran(AggregateRun),
    /// Another instance holds the lease; nothing was done.
    Busy {
        /// The name of that instance.
        owner: String,
    },
}

/// Makes one run on its own connections. An error after the start is recorded in the run. If the database cannot be
/// reached then, the next run records the failure.
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
        // The old connection may be broken or in the middle of a statement. Dropping it ends its transaction.
        connection = connect(context).await.with_context(|| format!("the run failed ({error}), and then"))?;
    }
    let run = runs::finish(&mut connection, run_id, error.as_deref()).await?;
    leases::release(&mut connection, &context.instance, &[LEASE.to_owned()]).await?;
    if let (None, Some(finished_at)) = (&run.error, run.finished_at) {
        let seconds = finished_at.signed_duration_since(DateTime::UNIX_EPOCH).as_seconds_f64();
        metrics::gauge!("ledger_aggregate_last_success_timestamp_seconds").set(seconds);
    }
    Ok(Outcome::Ran(run))
}

/// Returns the days that a run would work on. Takes no lease and writes nothing.
pub async fn preview(context: &Context, scope: Scope) -> anyhow::Result<Vec<DayPreview>> {
    let mut connection = connect(context).await?;
    let days = scope.days(&mut connection).await?;
    Ok(facts::day_previews(&mut connection, &days).await?)
}

async fn connect(context: &Context) -> Result<Connection, RepositoryError> {
    let timeout = context.config.aggregate.statement_timeout;
    repository::connect_for_long_statements(&context.config.database, "aggregate", timeout).await
}

/// Takes the lease, without a group. Nothing renews it in the background: the database transaction of each day extends
/// it, and locks its row, so that no other instance can take it however long the day takes.
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
        if scope == Scope::Touched {
            update(connection, lease, run_id, day).await?;
        } else {
            log(day, facts::rebuild_day(connection, lease, run_id, day).await?);
        }
        metrics::counter!("ledger_aggregate_rebuilds_total").increment(1);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Updates the facts that the marks of a day name, some marks at a time.
async fn update(
    connection: &mut Connection,
    lease: &Lease,
    run_id: i64,
    day: NaiveDate,
) -> Result<(), RepositoryError> {
    let mut after = None;
    loop {
        let updated = facts::update_day(connection, lease, run_id, day, after, MARKS_MAX).await?;
        log(day, updated.rows);
        fail_point::reach("aggregate/updated");
        after = updated.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn log(day: NaiveDate, rows: DayRebuilt) {
    tracing::debug!(
        %day,
        transactions = rows.transactions,
        added = rows.rows_added,
        changed = rows.rows_changed,
        removed = rows.rows_removed,
        "updated"
    );
}
