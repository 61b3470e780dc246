//! Assesses a batch of events: two queries to the ledger for all of them, then the rules. Records that hold no event are
//! passed over; the caller dead-letters them.
//!
//! The batch ends early
//! - at an event that cannot be handled,
//! - at an event whose account history would have to be read a second time,
//! - when the histories to read would have too many rows.
//!
//! The next batch begins where this one ended.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    cache::{CachedAccount, HistoryCache},
    decode::{Event, RecordFault},
    reader::DecodedRecord,
};
use crate::{
    domain::Currency,
    event::{RiskAssessed, RuleError},
    repository::{
        Connection, RepositoryError,
        assessments::NewAssessment,
        read_clock,
        transactions::{self, LedgerRow, SequenceGap},
    },
    risk::{AccountHistory, Assessment, NotNext, Ruleset},
    runtime::fail_point,
};

/// At least this many rows of an account are read: the event's own row, and the row before it, which shows that none is
/// missing.
const ROWS_BACK_MIN: i64 = 2;
/// The most rows of history that one batch reads, however much memory is free.
const HISTORY_ROWS_READ_MAX: i64 = 50_000;
/// The memory that an account takes in addition to its rows, as a number of rows.
const ACCOUNT_ROWS: i64 = 32;
/// How many events are scored before other tasks may run.
const EVENTS_BETWEEN_YIELDS: usize = 64;

/// The result of a batch.
#[derive(Default)]
pub(super) struct Assessed {
    pub rows: Vec<NewAssessment>,
    /// Events whose transaction already has an assessment.
    pub duplicates: u64,
    /// How many records from the front hold no event, or are covered by `rows` and `duplicates`.
    pub handled: usize,
    /// Events whose predecessor in their account was not assessed when the batch was planned.
    pub suspected_gaps: Vec<SequenceGap>,
    /// How many of them really follow an event that was never delivered.
    pub gaps: u64,
    /// Why the next record cannot be handled, if that ended the batch.
    pub fault: Option<RecordFault>,
    /// The rules that failed on transactions in `rows`, by id.
    pub failing_rules: BTreeMap<String, FailingRule>,
    pub assessed_at: DateTime<Utc>,
    /// The version of the rules.
    pub ruleset: Arc<str>,
}

/// A rule that failed on transactions of the batch.
#[derive(Debug)]
pub(super) struct FailingRule {
    pub mode: String,
    /// The first error.
    pub error: String,
    /// How many assessments note an error of the rule.
    pub count: u64,
}

/// The extent of the query to the ledger about an event that follows directly on a cached history.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LedgerLookup {
    /// Only the row itself. Such an event has an assessment only after a reset or a retry of dead letters. It is then
    /// scored in vain, and the write finds the existing assessment.
    RowOnly,
    /// The row, its currency and its assessment. An event that cannot be scored may have an assessment already.
    Full,
}

/// The action for an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EventAction {
    Score,
    /// Like `Score`, but the transaction before it is not assessed.
    ScoreAfterGap,
    /// Already assessed: only add it to the history.
    Remember,
    /// Already assessed, and no cached history ends directly before it: do nothing.
    Skip,
}

/// The action for each event up to the end of the batch, and the histories to read first.
#[derive(Default)]
pub(super) struct BatchPlan<'a> {
    actions: Vec<(&'a Event, EventAction)>,
    /// The index of the record of each event, then the number of records.
    record_indexes: Vec<usize>,
    accounts_to_read: Vec<(&'a str, Currency)>,
    before_seqs: Vec<i64>,
    fault: Option<RecordFault>,
}

impl BatchPlan<'_> {
    /// Counts the events whose history was in memory, and those whose history was read.
    fn count_histories(&self) {
        let scored = |action| matches!(action, EventAction::Score | EventAction::ScoreAfterGap);
        let all = self.actions.iter().filter(|(_, action)| scored(*action)).count();
        let read = self.accounts_to_read.len();
        for (source, count) in [("memory", all.saturating_sub(read)), ("ledger", read)] {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            metrics::counter!("ledger_risk_histories_total", "source" => source).increment(count);
        }
    }
}

/// Assesses records from the front: at least one, or the result gives the reason.
pub(super) async fn assess(
    connection: &mut Connection,
    ruleset: &Ruleset,
    cache: &mut HistoryCache,
    records: &[DecodedRecord],
    lookup: LedgerLookup,
) -> Result<Assessed, RepositoryError> {
    let assessed_at = read_clock(connection).await?.shown;
    let plan = plan(connection, ruleset, cache, records, lookup).await?;
    score(ruleset, cache, plan, assessed_at).await
}

/// The first part of [`assess`]: all queries to the database.
pub(super) async fn plan<'a>(
    connection: &mut Connection,
    ruleset: &Ruleset,
    cache: &mut HistoryCache,
    records: &'a [DecodedRecord],
    lookup: LedgerLookup,
) -> Result<BatchPlan<'a>, RepositoryError> {
    let (events, record_indexes) = events_of(records);
    if events.is_empty() {
        return Ok(BatchPlan { record_indexes, ..BatchPlan::default() });
    }
    let currencies = match lookup {
        LedgerLookup::RowOnly => known_currencies(cache, &events),
        LedgerLookup::Full => events.iter().map(|_| None).collect(),
    };
    let (account_ids, account_seqs): (Vec<&str>, Vec<i64>) =
        events.iter().map(|event| event.identity()).unzip();
    let known: Vec<bool> = currencies.iter().map(Option::is_some).collect();
    let rows = transactions::ledger_rows(connection, &account_ids, &account_seqs, &known).await?;
    let mut row_of_event: Vec<Option<LedgerRow>> = events.iter().map(|_| None).collect();
    for row in rows {
        let slot = usize::try_from(row.ordinal - 1).ok().and_then(|index| row_of_event.get_mut(index));
        slot.map(|slot| slot.replace(row));
    }
    let mut plan = plan_actions(ruleset, cache, &events, &row_of_event, &currencies);
    plan.record_indexes = record_indexes;
    read_histories(connection, ruleset, cache, &plan).await?;
    plan.count_histories();
    Ok(plan)
}

/// Returns the events, and the index of the record of each, followed by the number of records.
fn events_of(records: &[DecodedRecord]) -> (Vec<&Event>, Vec<usize>) {
    let decoded =
        records.iter().enumerate().filter_map(|(index, record)| Some((record.event.as_ref().ok()?, index)));
    let (events, mut indexes): (Vec<&Event>, Vec<usize>) = decoded.unzip();
    indexes.push(records.len());
    (events, indexes)
}

/// Returns the account's currency for each event that follows directly on the cached history, or on earlier events of
/// the batch that do.
fn known_currencies(cache: &mut HistoryCache, events: &[&Event]) -> Vec<Option<Currency>> {
    let mut next_seqs: HashMap<&str, i64> = HashMap::new();
    let identities = events.iter().map(|event| event.identity());
    identities
        .map(|(account_id, account_seq)| {
            // An account of this batch must not be dropped while the batch reads others.
            let known = cache.touch(account_id)?;
            let next = next_seqs.entry(account_id).or_insert_with(|| known.history.last_account_seq() + 1);
            if *next != account_seq {
                return None;
            }
            *next += 1;
            Some(known.currency)
        })
        .collect()
}

fn plan_actions<'a>(
    ruleset: &Ruleset,
    cache: &HistoryCache,
    events: &[&'a Event],
    rows: &[Option<LedgerRow>],
    currencies: &[Option<Currency>],
) -> BatchPlan<'a> {
    let mut plan = BatchPlan { actions: Vec::with_capacity(events.len()), ..BatchPlan::default() };
    let mut next_seqs: HashMap<&str, i64> = HashMap::new();
    let mut seen: HashSet<(&str, i64)> = HashSet::new();
    let rows_back = rows_back(ruleset);
    let room = i64::try_from(cache.room() / ruleset.history_row_bytes()).unwrap_or(i64::MAX);
    let rows_to_read_max = room.min(HISTORY_ROWS_READ_MAX);
    let mut rows_to_read = 0;
    for ((event, row), currency) in events.iter().zip(rows).zip(currencies) {
        let follows_assessed = row.as_ref().is_none_or(|row| row.follows_assessed);
        let is_assessed = match compare_with_ledger(event, row.as_ref(), *currency) {
            Ok(is_assessed) => is_assessed,
            Err(fault) => {
                plan.fault = Some(fault);
                break;
            }
        };
        let (account_id, account_seq) = event.identity();
        let is_duplicate = is_assessed || !seen.insert((account_id, account_seq));
        let known_next = next_seqs.get(account_id).copied();
        let next =
            known_next.or_else(|| cache.peek(account_id).map(|known| known.history.last_account_seq() + 1));
        let action = match (is_duplicate, next) {
            (true, Some(next)) if next == account_seq => EventAction::Remember,
            (true, _) => EventAction::Skip,
            (false, Some(next)) if next == account_seq => EventAction::Score,
            // The history does not end directly before this event, and this batch has already used it.
            (false, _) if known_next.is_some() => break,
            (false, _) => {
                rows_to_read += (account_seq - 1).min(rows_back) + ACCOUNT_ROWS;
                if rows_to_read > rows_to_read_max && !plan.accounts_to_read.is_empty() {
                    break;
                }
                plan.accounts_to_read.push((account_id, event.currency));
                plan.before_seqs.push(account_seq);
                if follows_assessed { EventAction::Score } else { EventAction::ScoreAfterGap }
            }
        };
        if action != EventAction::Skip {
            next_seqs.insert(account_id, account_seq + 1);
        }
        plan.actions.push((event, action));
    }
    plan
}

/// Compares the event with the ledger's row. Returns whether the row has an assessment, or how the two differ.
/// `currency` is the account's, if it is known without a query.
fn compare_with_ledger(
    event: &Event,
    row: Option<&LedgerRow>,
    currency: Option<Currency>,
) -> Result<bool, RecordFault> {
    let created = &event.created;
    let fault = |reason, error: String| Err(RecordFault { stage: "ledger", reason, error });
    let Some(row) = row else {
        let error = format!(
            "the ledger has no transaction {} of account {}",
            created.account_seq, created.account_id
        );
        return fault("not_in_ledger", error);
    };
    let currency = currency.map(Currency::code).or(row.currency.as_deref());
    let differences = [
        ("transaction_id", row.id != created.transaction_id),
        ("currency", currency != Some(created.currency.as_str())),
        ("amount", row.amount != event.amount),
        ("balance_after", row.balance_after != event.balance_after),
        ("created_at", row.created_at != created.created_at),
        ("counterparty", row.counterparty != created.counterparty),
        ("description", row.description != created.description),
        ("metadata", !is_same_metadata(row.metadata.as_deref(), created.metadata.as_ref())),
        ("reverses", row.reverses != created.reverses),
    ];
    match differences.into_iter().find(|(_, differs)| *differs) {
        Some((field, _)) => fault("differs_from_ledger", format!("{field} differs from the ledger")),
        None => Ok(row.is_assessed),
    }
}

/// Compares the metadata of a row and an event. Mostly the texts are equal, because the row's text is canonical.
fn is_same_metadata(row: Option<&str>, event: Option<&Map<String, Value>>) -> bool {
    let (Some(text), Some(entries)) = (row, event) else { return row.is_none() && event.is_none() };
    serde_json::to_string(entries).is_ok_and(|canonical| canonical == text)
        || serde_json::from_str::<Map<_, _>>(text).is_ok_and(|parsed| parsed == *entries)
}

async fn read_histories(
    connection: &mut Connection,
    ruleset: &Ruleset,
    cache: &mut HistoryCache,
    plan: &BatchPlan<'_>,
) -> Result<(), RepositoryError> {
    if plan.accounts_to_read.is_empty() {
        return Ok(());
    }
    let rows_back = rows_back(ruleset);
    let account_ids: Vec<&str> = plan.accounts_to_read.iter().map(|(account_id, _)| *account_id).collect();
    let mut histories: Vec<AccountHistory> =
        plan.accounts_to_read.iter().map(|_| AccountHistory::new(ruleset)).collect();
    transactions::each_earlier_row(connection, &account_ids, &plan.before_seqs, rows_back, |row| {
        let history = usize::try_from(row.ordinal - 1).ok().and_then(|index| histories.get_mut(index));
        let (counterparty, metadata) = (row.counterparty.as_deref(), row.metadata.as_deref());
        let row = ruleset.history_row(row.account_seq, row.created_at, row.amount, counterparty, metadata);
        if let Some(history) = history {
            history.add_earlier(row);
        }
    })
    .await?;
    // Only the account that was put in last is sure to stay. That must be the first account of the batch, so that the batch
    // can handle at least one event.
    let first = plan.actions.first().map_or("", |(event, _)| event.identity().0);
    let cached = cache.take(first);
    for ((account_id, currency), history) in plan.accounts_to_read.iter().zip(histories).rev() {
        cache.put(account_id, CachedAccount { history, currency: *currency });
    }
    // If it was read again, it was put in last.
    if let Some(account) = cached
        && cache.peek(first).is_none()
    {
        cache.put(first, account);
    }
    Ok(())
}

/// Returns how many rows of an account are read for an event, the event included.
fn rows_back(ruleset: &Ruleset) -> i64 {
    i64::try_from(ruleset.history_rows()).unwrap_or(i64::MAX).max(ROWS_BACK_MIN)
}

/// The ledger lacks the row before the event. The event cannot be scored until an operator has found out why.
fn missing_row(account_id: &str, account_seq: i64) -> RepositoryError {
    let detail =
        format!("transaction {} of {account_id} is missing, but {account_seq} exists", account_seq - 1);
    RepositoryError::Corrupt { what: "account", detail }
}

/// The second part of [`assess`]: scores without queries. `assessed_at` is the time by the database's clock.
pub(super) async fn score(
    ruleset: &Ruleset,
    cache: &mut HistoryCache,
    mut plan: BatchPlan<'_>,
    assessed_at: DateTime<Utc>,
) -> Result<Assessed, RepositoryError> {
    let record_indexes = std::mem::take(&mut plan.record_indexes);
    let mut assessed = score_events(ruleset, cache, plan, assessed_at).await?;
    // The records in front of the first event that is not handled.
    assessed.handled = record_indexes.get(assessed.handled).copied().unwrap_or(assessed.handled);
    Ok(assessed)
}

/// Scores the events of a plan. In the result, `handled` counts events.
async fn score_events(
    ruleset: &Ruleset,
    cache: &mut HistoryCache,
    plan: BatchPlan<'_>,
    assessed_at: DateTime<Utc>,
) -> Result<Assessed, RepositoryError> {
    let mut assessed = Assessed {
        rows: Vec::with_capacity(plan.actions.len()),
        assessed_at,
        ruleset: ruleset.version(),
        ..Assessed::default()
    };
    for (event, action) in plan.actions {
        if assessed.handled % EVENTS_BETWEEN_YIELDS == EVENTS_BETWEEN_YIELDS - 1 {
            tokio::task::yield_now().await;
        }
        let (account_id, account_seq) = event.identity();
        if action == EventAction::Skip {
            assessed.duplicates += 1;
            assessed.handled += 1;
            continue;
        }
        let scored = cache.change(account_id, |known| {
            let follows = known.history.last_account_seq() + 1 == account_seq;
            follows.then(|| match action {
                EventAction::Remember => {
                    ruleset.remember(&mut known.history, &event.subject());
                    Ok(None)
                }
                _ => {
                    fail_point::reach_with("consume-risk/scoring", event.created.description.as_deref());
                    ruleset.score(&mut known.history, &event.subject()).map(Some)
                }
            })
        });
        match scored.flatten() {
            // The cache dropped the history, or rows are missing. The next batch begins here and reads it again.
            None if assessed.handled > 0 => return Ok(assessed),
            None => return Err(missing_row(account_id, account_seq)),
            Some(Ok(None)) => assessed.duplicates += 1,
            Some(Ok(Some(assessment))) => {
                assessed.push(event, assessment)?;
                if action == EventAction::ScoreAfterGap {
                    let account_id = account_id.to_owned();
                    assessed.suspected_gaps.push(SequenceGap { account_id, account_seq });
                }
            }
            Some(Err(error)) => return Err(out_of_order(&error)),
        }
        assessed.handled += 1;
    }
    assessed.fault = plan.fault;
    Ok(assessed)
}

fn out_of_order(error: &NotNext) -> RepositoryError {
    RepositoryError::Corrupt { what: "account history", detail: error.to_string() }
}

impl Assessed {
    fn push(&mut self, event: &Event, assessment: Assessment) -> Result<(), RepositoryError> {
        let unwritable = |error: serde_json::Error| RepositoryError::Corrupt {
            what: "assessment",
            detail: error.to_string(),
        };
        let reasons = serde_json::to_string(&assessment.reasons).map_err(unwritable)?;
        let shadow_reasons = serde_json::to_string(&assessment.shadow_reasons).map_err(unwritable)?;
        let rule_errors = match assessment.rule_errors.as_slice() {
            [] => None,
            errors => Some(serde_json::to_string(errors).map_err(unwritable)?),
        };
        self.count_errors(&assessment.rule_errors);
        let created = &event.created;
        let risk_assessed = RiskAssessed {
            event_id: Uuid::now_v7(),
            transaction_id: created.transaction_id,
            account_id: created.account_id.clone(),
            account_seq: created.account_seq,
            risk_score: assessment.risk_score,
            risk_level: assessment.risk_level.as_str().to_owned(),
            reasons: assessment.reasons,
            shadow_reasons: assessment.shadow_reasons,
            rule_errors: assessment.rule_errors,
            ruleset: assessment.ruleset.to_string(),
            assessed_at: self.assessed_at,
        };
        self.rows.push(NewAssessment {
            account_id: created.account_id.clone(),
            account_seq: created.account_seq,
            transaction_id: created.transaction_id,
            day: created.created_at.date_naive(),
            risk_score: assessment.risk_score,
            risk_level: assessment.risk_level,
            reasons,
            shadow_reasons,
            rule_errors,
            event_id: risk_assessed.event_id,
            event_value: serde_json::to_vec(&risk_assessed).map_err(unwritable)?,
            traceparent: event.traceparent.clone(),
        });
        Ok(())
    }

    fn count_errors(&mut self, errors: &[RuleError]) {
        for RuleError { rule, mode, error } in errors {
            let failing = self.failing_rules.entry(rule.clone()).or_insert_with(|| FailingRule {
                mode: mode.clone(),
                error: error.clone(),
                count: 0,
            });
            failing.count += 1;
        }
    }
}
