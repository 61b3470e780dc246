//! Posts one group after the other on one connection, retries transient failures, and counts the outcomes of the rows.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Args, OnError,
    outcome::RowOutcome,
    rejects::Reject,
    report::{Ending, Report},
    row::Row,
};
use crate::{
    domain::Decision,
    posting::{Request, dry_run, post_all_or_nothing, post_locked},
    repository::{self, Connection, RepositoryError},
    runtime::{Backoff, Context},
};

const RETRY_WAIT_MIN: Duration = Duration::from_millis(200);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// A longer outage ends the import. The import can then be run again.
const RETRY_TIME_MAX: Duration = Duration::from_secs(300);

/// Which rows of a group are written.
enum Mode {
    /// Every row that is not refused.
    SkipRefused,
    /// The rows before the first refused one.
    StopAtRefused,
    /// No row. `has_effect` is set once the session holds the effect of a group. Such a session cannot be replaced.
    DryRun { has_effect: bool },
}

/// Posts the groups of an import.
pub(super) struct ImportPoster<'a> {
    context: &'a Context,
    connection: Option<Connection>,
    mode: Mode,
    on_error: OnError,
    report: Report,
    started: Instant,
}

impl<'a> ImportPoster<'a> {
    pub(super) fn new(context: &'a Context, args: &Args, rows_skipped: u64) -> Self {
        let mode = match (args.dry_run, args.on_error) {
            (true, _) => Mode::DryRun { has_effect: false },
            (false, OnError::Stop) => Mode::StopAtRefused,
            (false, OnError::Skip) => Mode::SkipRefused,
        };
        let rejects_are_listed = args.rejects.is_some();
        let report = Report {
            rows_skipped,
            rejects_are_listed,
            ..Report::new(args.dry_run, args.balance_tolerance.clone())
        };
        Self { context, connection: None, mode, on_error: args.on_error, report, started: Instant::now() }
    }

    /// Posts a group and returns its rejected rows in order. Returns None if a stop was requested before the group was
    /// posted.
    pub(super) async fn post(&mut self, rows: Vec<Row>) -> anyhow::Result<Option<Vec<Reject>>> {
        let group: Vec<Request> =
            rows.iter().map(|row| Request { posting: Arc::clone(&row.posting), traceparent: None }).collect();
        let Some(outcomes) = self.post_with_retries(&group).await? else { return Ok(None) };
        let mut refused = Vec::new();
        // A group that stops at a refused row has fewer outcomes than rows: the later rows were not tried.
        for (row, outcome) in rows.into_iter().zip(outcomes) {
            if self.on_error == OnError::Stop && !refused.is_empty() {
                break;
            }
            if let Some(reason) = self.report.count(&row, outcome) {
                refused.push(Reject {
                    account_id: row.posting.account_id.to_string(),
                    idempotency_key: row.posting.idempotency_key.as_str().to_owned(),
                    location: row.location,
                    reason,
                });
            }
        }
        Ok(Some(refused))
    }

    async fn post_with_retries(&mut self, group: &[Request]) -> anyhow::Result<Option<Vec<RowOutcome>>> {
        let mut backoff = Backoff::new(RETRY_WAIT_MIN, RETRY_WAIT_MAX);
        let started = Instant::now();
        loop {
            if self.context.stop.is_requested() {
                return Ok(None);
            }
            match self.attempt(group).await {
                Ok(outcomes) => return Ok(Some(outcomes)),
                Err(error) if error.is_transient() && started.elapsed() < RETRY_TIME_MAX => {
                    tracing::warn!(%error, "retrying the group");
                    backoff.wait(&self.context.stop).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes one attempt. After an error the connection is not used again.
    async fn attempt(&mut self, group: &[Request]) -> Result<Vec<RowOutcome>, RepositoryError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let outcomes = match &mut self.mode {
            Mode::SkipRefused => decisions(post_locked(&mut connection, group).await?.decisions),
            Mode::StopAtRefused => post_up_to_refused(&mut connection, group).await?,
            Mode::DryRun { has_effect } => {
                let decided = dry_run::decide(&mut connection, group).await?;
                *has_effect |= decided.iter().any(|decision| matches!(decision, Decision::Create(_)));
                decisions(decided)
            }
        };
        self.connection = Some(connection);
        Ok(outcomes)
    }

    async fn connect(&self) -> Result<Connection, RepositoryError> {
        if matches!(self.mode, Mode::DryRun { has_effect: true }) {
            return Err(RepositoryError::DryRunLost);
        }
        let mut connection = repository::connect(&self.context.config.database, "import").await?;
        repository::prepare_writer(&mut connection).await?;
        if matches!(self.mode, Mode::DryRun { .. }) {
            dry_run::begin(&mut connection).await?;
        }
        Ok(connection)
    }

    /// Counts rejected rows.
    pub(super) fn count_rejects(&mut self, count: usize) {
        self.report.count_rejects(count);
    }

    /// Describes the first balance that differs by more than the tolerance.
    pub(super) fn first_balance_error(&self) -> Option<&str> {
        self.report.first_balance_error.as_deref()
    }

    /// Describes the progress, for the progress bar.
    pub(super) fn progress(&self) -> String {
        let seconds = self.started.elapsed().as_secs().max(1);
        format!("{} rows, {}/s", self.report.rows, self.report.rows / seconds)
    }

    pub(super) fn into_report(self, ending: Ending) -> Report {
        self.report.ended(ending, self.started.elapsed())
    }
}

fn decisions(decisions: Vec<Decision>) -> Vec<RowOutcome> {
    decisions.into_iter().map(RowOutcome::from).collect()
}

/// Posts the requests before the first refused one. The last outcome is that of the refused request. No later request is
/// posted, because the refused row is corrected and posted again, and an account's rows must stay in order.
async fn post_up_to_refused(
    connection: &mut Connection,
    group: &[Request],
) -> Result<Vec<RowOutcome>, RepositoryError> {
    let mut refused: Option<Decision> = None;
    let mut rest = group;
    loop {
        match post_all_or_nothing(connection, rest).await {
            Ok(posted) => {
                return Ok(decisions(posted.decisions.into_iter().chain(refused).collect()));
            }
            Err(RepositoryError::GroupRefused { position, decision }) => {
                refused = Some(*decision);
                rest = rest.get(..position).unwrap_or_default();
            }
            Err(error) => return Err(error),
        }
    }
}
