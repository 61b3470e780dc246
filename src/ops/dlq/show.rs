//! `ledger dlq show`: one dead letter with its whole record.

use std::process::ExitCode;

use serde::Serialize;

use super::{
    super::installation::Installation,
    ShowArgs,
    content::{Content, printable, readable},
    dead_letter,
    list::{DeadLetterOut, time},
    record_name,
};
use crate::{
    event::Headers,
    repository::{
        Connection,
        dead_letters::{self, DeadLetter, DeadLetterRecord, Replay},
    },
    runtime::{OutputFormat, print_json, print_text},
};

#[derive(Serialize)]
struct ShownOut<'a> {
    #[serde(flatten)]
    letter: DeadLetterOut<'a>,
    key: Option<Content>,
    value: Option<Content>,
    headers: Vec<(String, Option<Content>)>,
    replay_log: Vec<ReplayOut<'a>>,
}

#[derive(Serialize)]
struct ReplayOut<'a> {
    replayed_at: String,
    replayed_by: &'a str,
    outcome: &'a str,
    detail: &'a str,
}

pub(super) async fn run(
    connection: &mut Connection,
    installation: &Installation,
    args: &ShowArgs,
) -> anyhow::Result<ExitCode> {
    let found = dead_letter(connection, args.id).await?;
    let record = dead_letters::record(connection, args.id).await?;
    let replays = dead_letters::replays(connection, args.id).await?;
    let headers = Headers::from_json(&record.headers)
        .ok_or_else(|| anyhow::anyhow!("the headers of dead letter {} have an unknown format", args.id))?;
    installation.print(args.output)?;
    match args.output {
        OutputFormat::Json => {
            let shown = serde_json::to_value(shown(&found, &record, &headers, &replays))?;
            print_json(&installation.json(shown)?)?;
        }
        OutputFormat::Table => print_text_form(&found, &record, &headers, &replays)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn shown<'a>(
    found: &'a DeadLetter,
    record: &DeadLetterRecord,
    headers: &Headers,
    replays: &'a [Replay],
) -> ShownOut<'a> {
    ShownOut {
        letter: DeadLetterOut::from(found),
        key: record.key.as_deref().map(Content::of),
        value: record.value.as_deref().map(Content::of),
        headers: headers
            .with_nulls()
            .map(|(name, value)| (name.into_owned(), value.map(Content::of)))
            .collect(),
        replay_log: replays
            .iter()
            .map(|replay| ReplayOut {
                replayed_at: time_of(replay),
                replayed_by: &replay.replayed_by,
                outcome: &replay.outcome,
                detail: &replay.detail,
            })
            .collect(),
    }
}

fn print_text_form(
    found: &DeadLetter,
    record: &DeadLetterRecord,
    headers: &Headers,
    replays: &[Replay],
) -> std::io::Result<()> {
    let event_id = found.event_id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
    print_text(format_args!("dead letter  {}", found.id))?;
    print_text(format_args!(
        "created      {} by {} after {} attempts",
        time(found),
        found.consumer_group,
        found.attempts
    ))?;
    print_text(format_args!("record       {}", record_name(found)))?;
    print_text(format_args!("event        {event_id}"))?;
    print_text(format_args!("reason       {} ({}): {}", found.reason, found.stage, printable(&found.error)))?;
    print_text(format_args!("\nkey\n{}", readable(record.key.as_deref())))?;
    print_text("\nheaders")?;
    for (name, value) in headers.with_nulls() {
        print_text(format_args!("{}: {}", printable(&name), readable(value)))?;
    }
    print_text(format_args!("\nvalue\n{}", readable(record.value.as_deref())))?;
    print_text("\nreplays")?;
    if replays.is_empty() {
        print_text("none")?;
    }
    for replay in replays {
        let detail = if replay.detail.is_empty() { String::new() } else { format!(": {}", replay.detail) };
        let line = format!("{} {} by {}{detail}", time_of(replay), replay.outcome, replay.replayed_by);
        print_text(printable(&line))?;
    }
    Ok(())
}

fn time_of(replay: &Replay) -> String {
    replay.replayed_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}
