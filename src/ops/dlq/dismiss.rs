//! `ledger dlq dismiss`: closes dead letters that need no retry. They are kept as evidence, with the note.
//!
//! Guarantees: all of the given dead letters are dismissed, or none. A dead letter that is no longer open stays as it is.

use std::process::ExitCode;

use serde::Serialize;
use uuid::Uuid;

use super::{
    super::{current_user::user_and_host, installation::Installation},
    DismissArgs,
};
use crate::{
    repository::{Connection, dead_letters},
    runtime::{OutputFormat, print_json, print_text},
};

#[derive(Serialize)]
struct DismissedOut<'a> {
    id: Uuid,
    /// `dismissed`, or `not_open` if a replay or a dismissal has handled it before.
    outcome: &'a str,
}

pub(super) async fn run(
    connection: &mut Connection,
    installation: &Installation,
    args: &DismissArgs,
) -> anyhow::Result<ExitCode> {
    let by = args.by.clone().unwrap_or_else(user_and_host);
    let mut ids = args.ids.clone();
    ids.sort();
    ids.dedup();
    let known = dead_letters::existing(connection, &ids).await?;
    if let Some(unknown) = ids.iter().find(|id| !known.contains(id)) {
        anyhow::bail!("there is no dead letter {unknown}; nothing was dismissed");
    }
    let dismissed = dead_letters::dismiss(connection, &ids, &by, &args.note).await?;
    for id in &dismissed {
        tracing::info!(%id, note = args.note, by, "dismissed a dead letter");
    }
    let outcome = |id: &Uuid| if dismissed.contains(id) { "dismissed" } else { "not_open" };
    installation.print(args.output)?;
    match args.output {
        OutputFormat::Json => {
            let items: Vec<_> = ids.iter().map(|id| DismissedOut { id: *id, outcome: outcome(id) }).collect();
            print_json(&installation.json(serde_json::json!({ "items": items }))?)?;
        }
        OutputFormat::Table => {
            let not_open = ids.len() - dismissed.len();
            print_text(format_args!("{} dismissed, {not_open} were not open", dismissed.len()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
