//! `ledger lanes`: the lanes of the outbox, the owner of each, and the number of rows in it.

use std::{collections::HashMap, process::ExitCode};

use clap::Args;
use serde::Serialize;

use super::installation::Installation;
use crate::{
    relay,
    repository::{
        leases::{self, LeaseState},
        outbox::{self, LaneBacklog, ROWS_COUNTED_MAX},
    },
    runtime::{Boot, Context, OutputFormat, print_json, print_text, table},
};

/// Flags of `ledger lanes`.
#[derive(Debug, Clone, Args)]
pub struct LanesArgs {
    /// Only lanes that have rows
    #[arg(long, env = "LEDGER_LANES_WAITING")]
    waiting: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_LANES_OUTPUT")]
    output: OutputFormat,
}

#[derive(Serialize)]
struct LaneOut {
    lane: i16,
    state: &'static str,
    owner: Option<String>,
    lease_seconds: Option<f64>,
    epoch: Option<i64>,
    /// The number of rows, counted up to a limit.
    rows: i64,
    oldest_age_seconds: Option<f64>,
    /// The topic of the first row.
    topic: Option<String>,
}

impl LaneOut {
    fn new(backlog: LaneBacklog, lease: Option<LeaseState>) -> Self {
        let lease_seconds = lease.as_ref().and_then(|lease| lease.remaining_seconds);
        let state = match lease_seconds {
            None => "unowned",
            Some(seconds) if seconds < 0.0 => "silent",
            Some(_) => "owned",
        };
        Self {
            lane: backlog.lane,
            state,
            lease_seconds,
            epoch: lease.as_ref().map(|lease| lease.epoch),
            owner: lease.and_then(|lease| lease.owner),
            rows: backlog.rows,
            oldest_age_seconds: backlog.oldest_age_seconds,
            topic: backlog.topic,
        }
    }
}

/// Runs the command.
pub async fn run(context: Context, args: LanesArgs) -> anyhow::Result<ExitCode> {
    let mut connection = Boot::new(&context, "lanes").connect().await?;
    let installation = Installation::read(&context, &mut connection).await?;
    installation.print(args.output)?;
    let backlogs = outbox::lane_backlogs(&mut connection).await?;
    let names: Vec<String> = backlogs.iter().map(|backlog| relay::lease_name(backlog.lane)).collect();
    let states = leases::states(&mut connection, &names).await?;
    let mut states: HashMap<String, LeaseState> =
        states.into_iter().map(|state| (state.name.clone(), state)).collect();
    let lanes = names.iter().zip(backlogs).map(|(name, backlog)| LaneOut::new(backlog, states.remove(name)));
    let lanes: Vec<LaneOut> = lanes.filter(|lane| !args.waiting || lane.rows > 0).collect();
    match args.output {
        OutputFormat::Json => print_json(&installation.json(serde_json::json!({ "items": lanes }))?)?,
        OutputFormat::Table if lanes.is_empty() => print_text("the outbox is empty")?,
        OutputFormat::Table => print(&lanes)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(lanes: &[LaneOut]) -> std::io::Result<()> {
    let mut rows =
        table(["lane", "state", "owner", "lease", "epoch", "rows", "oldest", "topic of the first"])
            .optional(["epoch", "lease", "topic of the first", "owner"]);
    let seconds =
        |seconds: Option<f64>| seconds.map_or_else(String::new, |seconds| format!("{seconds:.1} s"));
    for lane in lanes {
        let count =
            if lane.rows >= ROWS_COUNTED_MAX { format!("{}+", lane.rows) } else { lane.rows.to_string() };
        rows.add_row([
            lane.lane.to_string(),
            lane.state.to_owned(),
            lane.owner.clone().unwrap_or_default(),
            seconds(lane.lease_seconds),
            lane.epoch.map_or_else(String::new, |epoch| epoch.to_string()),
            count,
            seconds(lane.oldest_age_seconds),
            lane.topic.clone().unwrap_or_default(),
        ]);
    }
    print_text(&rows)
}
