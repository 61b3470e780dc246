//! Prints the outcome of a run, or the days that a run would work on, as a table or as JSON.

use anyhow::Context as _;
use chrono::NaiveDate;
use serde::Serialize;

use super::run::Outcome;
use crate::{
    repository::facts::{DayPreview, runs::AggregateRun},
    runtime::{OutputFormat, print_json, print_text, table},
};

/// A run with the fields that are computed from it.
#[derive(Serialize)]
struct RunOut<'a> {
    /// `succeeded` or `failed`.
    outcome: &'a str,
    #[serde(flatten)]
    run: &'a AggregateRun,
    seconds: f64,
}

pub(super) fn print_outcome(outcome: &Outcome, output: OutputFormat) -> anyhow::Result<()> {
    match (outcome, output) {
        (Outcome::Busy { owner }, OutputFormat::Json) => {
            print_json(&serde_json::json!({ "outcome": "busy", "owner": owner }))
                .context("cannot print the outcome")
        }
        (Outcome::Busy { owner }, OutputFormat::Table) => {
            eprintln!("{owner} is aggregating; this instance did nothing (--wait DURATION waits for it)");
            Ok(())
        }
        (Outcome::Ran(run), OutputFormat::Json) => {
            print_json(&RunOut { outcome: &run.status, run, seconds: seconds(run) })
                .context("cannot print the run")
        }
        (Outcome::Ran(run), OutputFormat::Table) => print_run(run),
    }
}

fn seconds(run: &AggregateRun) -> f64 {
    run.finished_at.map_or(0.0, |end| (end - run.started_at).as_seconds_f64())
}

fn print_run(run: &AggregateRun) -> anyhow::Result<()> {
    let day = |day: Option<NaiveDate>| day.map_or_else(|| "–".to_owned(), |day| day.to_string());
    let headings = [
        "run",
        "mode",
        "status",
        "days",
        "from",
        "to",
        "transactions",
        "high risk",
        "added",
        "changed",
        "removed",
        "seconds",
    ];
    let mut table = table(headings).optional(["mode", "run", "high risk"]);
    table.add_row([
        run.id.to_string(),
        run.mode.clone(),
        run.status.clone(),
        run.days_rebuilt.to_string(),
        day(run.first_day),
        day(run.last_day),
        run.transactions.to_string(),
        run.high_risk.to_string(),
        run.rows_added.to_string(),
        run.rows_changed.to_string(),
        run.rows_removed.to_string(),
        format!("{:.1}", seconds(run)),
    ]);
    print_text(table)?;
    if let Some(error) = &run.error {
        eprintln!("error: {error}");
    }
    Ok(())
}

pub(super) fn print_previews(mode: &str, days: &[DayPreview], output: OutputFormat) -> anyhow::Result<()> {
    if output == OutputFormat::Json {
        let preview = serde_json::json!({ "outcome": "dry_run", "mode": mode, "days": days });
        return print_json(&preview).context("cannot print the days");
    }
    let mut rows = table(["day", "marks", "transactions", "facts"]);
    for DayPreview { day, marks, transactions, facts } in days {
        rows.add_row([day.to_string(), marks.to_string(), transactions.to_string(), facts.to_string()]);
    }
    if !days.is_empty() {
        print_text(rows)?;
    }
    let transactions: i64 = days.iter().map(|day| day.transactions).sum();
    print_text(format_args!(
        "dry run: a run would work on {} days, which have {transactions} transactions",
        days.len()
    ))?;
    Ok(())
}
