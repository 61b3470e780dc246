//! `ledger dlq replay`: retries dead letters, one at a time.
//!
//! ```text
//! dead letter ─▶ decode, ledger, history, rules ─▶ one commit: assessment + RiskAssessed event + audit row
//!                                            └───▶ still fails: audit row alone
//! ```
//!
//! Guarantees: a replay is idempotent, also in parallel with another replay or with the consumer. Every replay adds a row
//! to the audit, in the commit that has its effect.
//!
//! A record is never published again to its topic: later records of the account are published already, and first
//! occurrences there are in order. An event that the relay dead-lettered is therefore assessed but stays unpublished.
//! Only a record for the dead-letter topic, which guarantees no order, goes back into the outbox.

mod report;

use std::{collections::VecDeque, process::ExitCode, time::Duration};

use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use self::report::{Outcome, Replayed, Report};
use super::{
    super::{current_user::user_and_host, installation::Installation},
    ReplayArgs, dead_letter, record_name,
};
use crate::{
    broker::FetchedRecord,
    consume_risk::{self, RetriedRecord},
    event::{Headers, TRANSACTIONS_DEAD_LETTER_TOPIC, TRANSACTIONS_TOPIC},
    repository::{
        Connection, RepositoryError,
        dead_letters::{self, DeadLetter, DeadLetterFilter},
        prepare_writer, transaction,
    },
    risk::Ruleset,
    runtime::{Context, Stop},
};

const RATE_MAX: u32 = 100_000;
const PAGE_SIZE: i64 = 1_000;
const ALREADY_QUEUED: &str = "an earlier replay put it into the outbox; if it was too large again, there is a new \
                              dead letter for it";

/// The treatment of a dead letter.
enum Action {
    Retry(RetriedRecord),
    Queue(Option<Vec<u8>>),
    /// It cannot be retried, for this reason.
    Refuse(String),
}

/// Parses a rate such as `50/s`.
pub(super) fn parse_rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").and_then(|number| number.parse().ok());
    number
        .filter(|rate| (1..=RATE_MAX).contains(rate))
        .ok_or_else(|| format!("expected a rate from 1/s to {RATE_MAX}/s"))
}

pub(super) async fn run(
    context: &Context,
    connection: &mut Connection,
    installation: &Installation,
    args: &ReplayArgs,
) -> anyhow::Result<ExitCode> {
    prepare_writer(connection).await?;
    let ruleset = consume_risk::load_rules(context).await?;
    let by = args.by.clone().unwrap_or_else(user_and_host);
    let mut selection = Selection::new(connection, args).await?;
    let mut pace = ReplayPace::new(args.rate);
    let mut report = Report::default();
    while let Some(id) = selection.next(connection).await? {
        if !pace.wait(&context.stop).await {
            report.print(installation, args, true)?;
            anyhow::bail!("stopped after {} dead letters", report.total());
        }
        let letter = dead_letter(connection, id).await?;
        let replayed = replay(connection, &ruleset, &letter, &by, args.dry_run).await?;
        if !args.dry_run {
            tracing::info!(%id, record = replayed.record, outcome = replayed.outcome.as_str(),
                detail = replayed.detail, by, "replayed a dead letter");
        }
        report.add(replayed);
    }
    let has_more = selection.has_more(connection).await?;
    report.print(installation, args, has_more)?;
    Ok(if report.count(Outcome::Failing) > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The dead letters to retry: the given ids, or all matching ones that existed at the start, page by page. A dead letter
/// that still fails does not block the others, and new dead letters are not retried.
struct Selection {
    page: VecDeque<Uuid>,
    /// None if ids were given.
    filter: Option<DeadLetterFilter>,
    after: Option<Uuid>,
    left: i64,
}

impl Selection {
    /// Selects the dead letters, and fails if a given id does not exist.
    async fn new(connection: &mut Connection, args: &ReplayArgs) -> anyhow::Result<Self> {
        for id in &args.ids {
            dead_letter(connection, *id).await?;
        }
        let mut filter = args.filter.filter(Some(true));
        let now = dead_letters::now(connection).await?;
        filter.until = Some(filter.until.map_or(now, |until| until.min(now)));
        Ok(Self {
            page: args.ids.iter().copied().collect(),
            filter: args.all.then_some(filter),
            after: None,
            left: args.limit.unwrap_or(i64::MAX),
        })
    }

    async fn next(&mut self, connection: &mut Connection) -> Result<Option<Uuid>, RepositoryError> {
        if self.page.is_empty()
            && let Some(filter) = &self.filter
        {
            let count = self.left.min(PAGE_SIZE);
            self.page = dead_letters::oldest_ids(connection, filter, self.after, count).await?.into();
            self.after = self.page.back().copied().or(self.after);
            self.left -= i64::try_from(self.page.len()).unwrap_or(i64::MAX);
        }
        Ok(self.page.pop_front())
    }

    /// Returns whether the limit left some out.
    async fn has_more(&self, connection: &mut Connection) -> Result<bool, RepositoryError> {
        let Some(filter) = self.filter.as_ref().filter(|_| self.left == 0) else { return Ok(false) };
        Ok(!dead_letters::oldest_ids(connection, filter, self.after, 1).await?.is_empty())
    }
}

/// Limits the rate of replays.
struct ReplayPace {
    interval: Duration,
    next: Instant,
}

impl ReplayPace {
    fn new(rate: Option<u32>) -> Self {
        let interval = rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate);
        Self { interval, next: Instant::now() }
    }

    /// Waits for the next replay. Returns false if a stop was requested.
    async fn wait(&mut self, stop: &Stop) -> bool {
        tokio::select! {
            () = sleep_until(self.next) => {}
            () = stop.requested() => {}
        }
        self.next = self.next.max(Instant::now()) + self.interval;
        !stop.is_requested()
    }
}

async fn replay(
    connection: &mut Connection,
    ruleset: &Ruleset,
    letter: &DeadLetter,
    by: &str,
    dry_run: bool,
) -> Result<Replayed, RepositoryError> {
    let action = action(connection, ruleset, letter).await?;
    let (outcome, detail) = match dry_run {
        true => predicted(&action, letter),
        false => carry_out(connection, &action, letter.id, by).await?,
    };
    Ok(Replayed { id: letter.id, record: record_name(letter), outcome, detail })
}

async fn action(
    connection: &mut Connection,
    ruleset: &Ruleset,
    letter: &DeadLetter,
) -> Result<Action, RepositoryError> {
    let record = dead_letters::record(connection, letter.id).await?;
    match letter.topic.as_str() {
        TRANSACTIONS_TOPIC => {
            let headers = Headers::from_json(&record.headers).ok_or_else(|| RepositoryError::Corrupt {
                what: "dead letter",
                detail: format!("the headers of {} have an unknown format", letter.id),
            })?;
            let record = FetchedRecord {
                offset: letter.record_offset.unwrap_or(-1),
                key: record.key.map(Into::into),
                value: record.value.map(Into::into),
                headers,
                timestamp: letter.created_at,
                leader_epoch: None,
            };
            Ok(Action::Retry(consume_risk::retry_record(connection, ruleset, record).await?))
        }
        TRANSACTIONS_DEAD_LETTER_TOPIC => Ok(Action::Queue(record.key)),
        topic => Ok(Action::Refuse(format!(
            "publishing to {topic} now would break the order of its account's events; the database has the same data"
        ))),
    }
}

/// Returns the outcome that a dry run reports.
fn predicted(action: &Action, letter: &DeadLetter) -> (Outcome, String) {
    match action {
        Action::Retry(RetriedRecord::Assessed(assessment)) => (Outcome::Assessed, assessment.summary()),
        Action::Retry(RetriedRecord::AlreadyAssessed) => (Outcome::AlreadyAssessed, String::new()),
        Action::Retry(RetriedRecord::Failed { stage, reason, error }) => failing(stage, reason, error),
        Action::Queue(_) if letter.replays > 0 => (Outcome::AlreadyQueued, ALREADY_QUEUED.to_owned()),
        Action::Queue(_) => (Outcome::Queued, String::new()),
        Action::Refuse(why) => (Outcome::Failing, why.clone()),
    }
}

fn failing(stage: &str, reason: &str, error: &str) -> (Outcome, String) {
    // PostgreSQL's text cannot hold U+0000, and the message may contain text of the record.
    (Outcome::Failing, format!("{reason} ({stage}): {error}").replace('\0', ""))
}

/// Commits the effect and the row of the audit together.
async fn carry_out(
    connection: &mut Connection,
    action: &Action,
    id: Uuid,
    by: &str,
) -> Result<(Outcome, String), RepositoryError> {
    transaction("replay", connection, async |connection: &mut Connection| {
        let queued_before = dead_letters::lock(connection, id).await?;
        let (outcome, detail) = match action {
            Action::Retry(RetriedRecord::Assessed(assessment)) if assessment.write(connection).await? => {
                (Outcome::Assessed, assessment.summary())
            }
            Action::Retry(RetriedRecord::Assessed(_) | RetriedRecord::AlreadyAssessed) => {
                (Outcome::AlreadyAssessed, String::new())
            }
            Action::Retry(RetriedRecord::Failed { stage, reason, error }) => failing(stage, reason, error),
            Action::Queue(_) if queued_before > 0 => (Outcome::AlreadyQueued, ALREADY_QUEUED.to_owned()),
            Action::Queue(key) => {
                dead_letters::requeue(connection, id, key.as_deref()).await?;
                (Outcome::Queued, String::new())
            }
            Action::Refuse(why) => (Outcome::Failing, why.clone()),
        };
        dead_letters::insert_replay(connection, id, by, outcome.as_str(), &detail).await?;
        Ok((outcome, detail))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_a_second() {
        assert_eq!(parse_rate("50/s"), Ok(50));
        for wrong in ["50", "0/s", "-1/s", "1/m", "1000001/s", "/s"] {
            parse_rate(wrong).expect_err(wrong);
        }
    }
}
