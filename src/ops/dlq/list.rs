//! `ledger dlq list`: pages of dead letters, newest first.

use std::process::ExitCode;

use serde::Serialize;

use super::{super::installation::Installation, ListArgs, content::printable, dead_letter, record_name};
use crate::{
    repository::{
        Connection,
        dead_letters::{self, DeadLetter},
    },
    runtime::{OutputFormat, Table, print_json, print_text, table},
};

/// The longest error text in a table, in characters.
const ERROR_LENGTH_MAX: usize = 80;

/// A dead letter in JSON output.
#[derive(Serialize)]
pub(super) struct DeadLetterOut<'a> {
    id: uuid::Uuid,
    created_at: String,
    group: &'a str,
    topic: &'a str,
    partition: Option<i32>,
    offset: Option<i64>,
    stage: &'a str,
    reason: &'a str,
    error: &'a str,
    attempts: i32,
    event_id: Option<uuid::Uuid>,
    replays: i64,
    outcome: Option<&'a str>,
}

impl<'a> From<&'a DeadLetter> for DeadLetterOut<'a> {
    fn from(row: &'a DeadLetter) -> Self {
        Self {
            id: row.id,
            created_at: time(row),
            group: &row.consumer_group,
            topic: &row.topic,
            partition: row.partition,
            offset: row.record_offset,
            stage: &row.stage,
            reason: &row.reason,
            error: &row.error,
            attempts: row.attempts,
            event_id: row.event_id,
            replays: row.replays,
            outcome: row.outcome.as_deref(),
        }
    }
}

pub(super) async fn run(
    connection: &mut Connection,
    installation: &Installation,
    args: &ListArgs,
) -> anyhow::Result<ExitCode> {
    if let Some(before) = args.before {
        dead_letter(connection, before).await?;
    }
    let filter = args.filter.filter(args.state.is_open());
    // Reads one more than the limit, to know whether there is another page.
    let mut letters = dead_letters::newest(connection, &filter, args.before, args.limit + 1).await?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let has_more = letters.len() > limit;
    letters.truncate(limit);
    let next = letters.last().map(|last| last.id).filter(|_| has_more);
    installation.print(args.output)?;
    match args.output {
        OutputFormat::Json => {
            let items: Vec<DeadLetterOut> = letters.iter().map(DeadLetterOut::from).collect();
            print_json(&installation.json(serde_json::json!({ "items": items, "next_before": next }))?)?;
        }
        OutputFormat::Table if letters.is_empty() => print_text("no dead letters")?,
        OutputFormat::Table => {
            print_text(page(&letters))?;
            if let Some(next) = next {
                print_text(format_args!("more: --before {next}"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn page(letters: &[DeadLetter]) -> Table {
    let mut page = table(["id", "created", "by", "record", "reason", "error", "attempts", "replays"])
        .wrapping(["error"])
        .optional(["by", "attempts", "created", "replays"]);
    for letter in letters {
        let replays = match &letter.outcome {
            None => "none".to_owned(),
            Some(outcome) if letter.replays == 0 => outcome.clone(),
            Some(outcome) => format!("{} ({outcome})", letter.replays),
        };
        page.add_row([
            letter.id.to_string(),
            time(letter),
            letter.consumer_group.clone(),
            record_name(letter),
            letter.reason.clone(),
            shortened(&printable(&letter.error)),
            letter.attempts.to_string(),
            replays,
        ]);
    }
    page
}

/// Returns the time of creation in UTC, with milliseconds.
pub(super) fn time(letter: &DeadLetter) -> String {
    letter.created_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(ERROR_LENGTH_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
