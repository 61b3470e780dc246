//! `ledger verify`: compares ledger, balances, outbox, topics, assessments, positions, dead letters and facts with each
//! other on a live system, and reports the differences.
//!
//! ```text
//! snapshot ─▶ schema, ledger against itself ─▶ topic from its first record ─▶ other transactions against the outbox
//! (outbox, positions, last numbers)                               ─▶ assessments ─▶ dead letters ─▶ facts by day
//! ```
//!
//! Guarantees:
//! - An event in flight is not a difference: the outbox is copied before the end of the topic is read.
//! - The memory of the process grows with the number of accounts (about 100 bytes each), not of transactions. The
//!   temporary tables in PostgreSQL take about 150 bytes for each assessment.
//!
//! Deliberately absent: repairs.

mod announcements;
mod events;
mod facts;
mod groups;
mod in_flight;
mod ledger;
mod order;
mod report;
mod rescore;
mod topic;

use std::{collections::HashSet, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;

pub use report::{Check, Report, Status};

use self::topic::TopicHistory;
use super::installation::Installation;
use crate::{
    broker::SharedBroker,
    consume_risk,
    event::TRANSACTIONS_TOPIC,
    repository::{
        Connection,
        verification::{self, Findings, Snapshot},
    },
    risk::{Ruleset, SHIPPED_RULES},
    runtime::{Boot, BrokerRecord, Context, OutputFormat, parse_time_span, progress_bar},
};

/// A comparison of millions of rows takes minutes.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3600);
/// How many examples of each difference are shown.
const EXAMPLES_DEFAULT: usize = 10;
const PROGRESS: &str = "{spinner} {msg} ({elapsed})";

/// Flags of `ledger verify`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// Wait at most this long until nothing is in flight; then a transaction without an assessment is a difference
    #[arg(long, value_name = "DURATION", env = "LEDGER_VERIFY_WAIT", value_parser = parse_time_span)]
    pub wait: Option<Duration>,
    /// Score all assessed transactions again, with the rules of the version that each assessment names
    #[arg(long, env = "LEDGER_VERIFY_RESCORE")]
    pub rescore: bool,
    /// A rule file for --rescore, beside risk.rules and the built-in rules; once for each earlier version
    #[arg(
        long,
        value_name = "FILE",
        env = "LEDGER_VERIFY_RULES",
        value_delimiter = ',',
        requires = "rescore"
    )]
    pub rules: Vec<PathBuf>,
    /// Show at most this many examples of each difference; 10 if left out
    #[arg(long, value_name = "COUNT", env = "LEDGER_VERIFY_EXAMPLES",
          value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub examples: Option<u16>,
    /// Format of the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_VERIFY_OUTPUT")]
    pub output: OutputFormat,
}

/// Runs the command, prints the report, and exits with 1 if there are differences.
pub async fn run(context: Context, args: Args) -> anyhow::Result<ExitCode> {
    let report = tokio::select! {
        report = verify(&context, &args) => report?,
        () = context.stop.requested() => anyhow::bail!("stopped before all checks were made"),
    };
    report.print(args.output)?;
    Ok(if report.is_fine() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes all checks.
pub async fn verify(context: &Context, args: &Args) -> anyhow::Result<Report> {
    let config = &context.config;
    let rulesets = if args.rescore { rulesets(context, &args.rules).await? } else { Vec::new() };
    let mut boot = Boot::new(context, "verify");
    let mut connection = boot.connect_for_long_statements(STATEMENT_TIMEOUT).await?;
    let broker = boot.broker().await.context("cannot reach the broker (broker.kind)")?;
    let record = BrokerRecord::read(&mut connection).await?;
    let bar = progress_bar(0, PROGRESS);
    let examples = args.examples.map_or(EXAMPLES_DEFAULT, usize::from);
    let mut report = Report::new(Installation::read(context, &mut connection).await?, examples);
    if let Some(limit) = args.wait {
        bar.set_message("waiting until nothing is in flight");
        let quiet = in_flight::wait(&mut connection, &*broker, &config.consume_risk.group, limit).await?;
        report.push(in_flight::check(quiet, limit));
    }
    verification::create_functions(&mut connection, examples).await?;
    let snapshot = verification::snapshot(&mut connection).await?;
    bar.set_message("the ledger");
    ledger::check(&mut connection, &mut report).await?;
    bar.set_message("the topics");
    let in_flight = check_events(context, &mut connection, &broker, &record, &snapshot, &mut report).await?;
    bar.set_message("the assessments");
    check_assessments(context, &mut connection, args, in_flight, &mut report).await?;
    if args.rescore {
        report.push(rescore::check(&mut connection, rulesets, &bar).await?);
    }
    bar.set_message("the facts");
    facts::check(&mut connection, &mut report).await?;
    bar.finish_and_clear();
    Ok(report)
}

/// Returns the configured rules, the built-in rules and those of the files, each version once.
async fn rulesets(context: &Context, files: &[PathBuf]) -> anyhow::Result<Vec<Ruleset>> {
    let mut rulesets = vec![consume_risk::load_rules(context).await?, Ruleset::parse(SHIPPED_RULES)?];
    for file in files {
        rulesets.push(consume_risk::load_rule_file(file).await?);
    }
    let mut versions = HashSet::new();
    rulesets.retain(|ruleset| versions.insert(ruleset.version()));
    Ok(rulesets)
}

/// Finds the transactions whose events are neither in the topic nor in the outbox, and writes their ranges into the
/// temporary table of gaps. Returns how many accounts cannot be checked, because retention removed the start of their
/// partition, or because their earlier events are in another broker.
pub(super) async fn store_missing(
    context: &Context,
    connection: &mut Connection,
    broker: &SharedBroker,
) -> anyhow::Result<i64> {
    verification::create_functions(connection, EXAMPLES_DEFAULT).await?;
    let snapshot = verification::snapshot(connection).await?;
    let history = TopicHistory::new(&BrokerRecord::read(connection).await?, TRANSACTIONS_TOPIC);
    let group = &context.config.consume_risk.group;
    let scan = events::TopicScan::read(connection, &**broker, &snapshot, group, history).await?;
    scan.store_missing(connection).await
}

/// Returns how many events may be on their way to an assessment, duplicates included.
async fn check_events(
    context: &Context,
    connection: &mut Connection,
    broker: &SharedBroker,
    record: &BrokerRecord,
    snapshot: &Snapshot,
    report: &mut Report,
) -> anyhow::Result<i64> {
    report.push(Check::of(
        "outbox",
        "each event there has its transaction in the ledger",
        snapshot.outbox_transactions,
        verification::outbox_without_transaction(connection).await?,
    ));
    let group = &context.config.consume_risk.group;
    let history = TopicHistory::new(record, TRANSACTIONS_TOPIC);
    let scan = events::TopicScan::read(connection, &**broker, snapshot, group, history).await?;
    let behind = scan.behind;
    for check in scan.into_checks(connection).await? {
        report.push(check);
    }
    report.push(groups::check_positions(&**broker, snapshot).await?);
    report.push(groups::check_dead_letters(connection, &**broker, history).await?);
    report.push(announcements::check(connection, &**broker, history).await?);
    Ok(behind + snapshot.outbox_transactions)
}

async fn check_assessments(
    context: &Context,
    connection: &mut Connection,
    args: &Args,
    in_flight: i64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let counts = verification::table_counts(connection).await?;
    let mut mismatches = verification::duplicate_assessments(connection).await?;
    mismatches.add(verification::assessment_mismatches(connection).await?);
    mismatches.add(verification::unexplained_scores(connection).await?);
    report.push(Check::of(
        "assessments",
        "each transaction has at most one, with its id, and with reasons that sum to its score",
        counts.assessments,
        mismatches,
    ));
    let pending = verification::unassessed(connection, &context.config.consume_risk.group).await?;
    let waited = args.wait.is_some();
    let lost = if waited || pending.differences > in_flight { pending.clone() } else { Findings::default() };
    let is_lost = lost.differences > 0;
    let check = Check::of(
        "pending",
        "each transaction without an assessment has an event in flight",
        pending.differences,
        lost,
    );
    report.push(match pending.differences {
        0 => check,
        count if is_lost => check.with_note(format!(
            "{count} pending, up to {in_flight} in flight; `ledger risk assess` assesses transactions whose events are lost"
        )),
        count => check.with_note(format!("{count} pending, up to {in_flight} in flight")),
    });
    Ok(())
}
