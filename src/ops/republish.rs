//! `ledger republish`: publishes the events of transactions again, through the outbox.
//!
//! ```text
//! selection ─▶ numbered list (temporary table) ─▶ batches: outbox rows + audit, one commit each ─▶ relay ─▶ topic
//! ```
//!
//! Guarantees:
//! - The events of an account are published in `account_seq` order. Each has the value of its first publication, and the
//!   header `ce_republished`.
//! - The audit (`republications`: who, when, selection, count) counts exactly the events that were put into the outbox,
//!   also after a crash.
//! - A consumer drops an event that it has handled, and handles an event that it has never seen.
//!
//! Deliberately absent: RiskAssessed events, and a place among later events of the account that are published already.

mod selection;

use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde::Serialize;
use uuid::Uuid;

use self::selection::Bound;
use super::{current_user::user_and_host, installation::Installation, verify};
use crate::{
    domain::{Transaction, format_moment},
    event::{encode_transaction_created, republished_headers},
    repository::{
        Connection, RepositoryError,
        republications::{self, Republished, Selected},
        sequences,
    },
    runtime::{Boot, Context, EXIT_MISUSED, OutputFormat, print_json, print_text, progress_bar, table},
};

/// How many events one commit puts into the outbox.
const BATCH_ROWS_MAX: i64 = 1_000;
/// How many of the selected transactions are printed.
const SHOWN_MAX: i64 = 20;
/// The limit of one statement. The search for missing events compares whole tables.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3600);
const PROGRESS: &str = "{bar:30} {pos} of {len} put into the outbox ({elapsed})";

/// Flags of `ledger republish`.
#[derive(Debug, Clone, Args)]
pub struct RepublishArgs {
    /// The ids of the transactions
    #[arg(value_name = "TRANSACTION", required_unless_present_any = ["account", "from", "to", "missing"],
          conflicts_with_all = ["account", "from", "to", "missing"])]
    ids: Vec<Uuid>,
    /// Only transactions of this account
    #[arg(long, env = "LEDGER_REPUBLISH_ACCOUNT", value_name = "ACCOUNT", conflicts_with = "missing")]
    account: Option<String>,
    /// Only transactions since this time, day or duration ago (2h), or from the transaction with this id on
    #[arg(long, env = "LEDGER_REPUBLISH_FROM", value_name = "TIME|ID", value_parser = selection::parse_bound,
          conflicts_with = "missing")]
    from: Option<Bound>,
    /// Only transactions before this time, or up to the transaction with this id
    #[arg(long, env = "LEDGER_REPUBLISH_TO", value_name = "TIME|ID", value_parser = selection::parse_bound,
          conflicts_with = "missing")]
    to: Option<Bound>,
    /// All transactions whose events are neither in the topic nor in the outbox, as `ledger verify` reports them
    #[arg(long, env = "LEDGER_REPUBLISH_MISSING")]
    missing: bool,
    /// Show the selection and write nothing
    #[arg(long, env = "LEDGER_REPUBLISH_DRY_RUN")]
    dry_run: bool,
    /// Confirm that more than one event is published again
    #[arg(long, env = "LEDGER_REPUBLISH_YES")]
    yes: bool,
    /// The name for the audit; by default user@host
    #[arg(long, env = "LEDGER_REPUBLISH_BY", value_name = "NAME")]
    by: Option<String>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_REPUBLISH_OUTPUT")]
    output: OutputFormat,
}

/// Runs the command.
pub async fn run(context: Context, args: RepublishArgs) -> anyhow::Result<ExitCode> {
    if let Some(contradiction) = args.contradiction() {
        eprintln!("error: {contradiction}");
        return Ok(ExitCode::from(EXIT_MISUSED));
    }
    let mut boot = Boot::new(&context, "republish");
    let mut connection = boot.connect_for_long_statements(STATEMENT_TIMEOUT).await?;
    sequences::check(&mut connection).await?;
    let installation = Installation::read(&context, &mut connection).await?;
    let accounts_unchecked = select(&context, &mut boot, &mut connection, &args).await?;
    let selected = republications::selected(&mut connection).await?;
    if selected.transactions > 1 && !args.dry_run && !args.yes {
        let count = selected.transactions;
        eprintln!("error: {count} events would be published again; --dry-run shows them, --yes confirms");
        return Ok(ExitCode::from(EXIT_MISUSED));
    }
    let first = republications::page(&mut connection, 0, SHOWN_MAX).await?;
    let mut result = RunResult { selected, accounts_unchecked, first, run: None, republished: 0 };
    if selected.transactions > 0 && !args.dry_run {
        publish(&context, &mut connection, &args, &mut result).await?;
    }
    result.print(&installation, &args)?;
    anyhow::ensure!(
        args.dry_run || result.republished == selected.transactions,
        "stopped after {} of {} events; those are published again",
        result.republished,
        selected.transactions
    );
    Ok(ExitCode::SUCCESS)
}

/// Selects the transactions. Returns how many accounts could not be checked with `--missing`.
async fn select(
    context: &Context,
    boot: &mut Boot<'_>,
    connection: &mut Connection,
    args: &RepublishArgs,
) -> anyhow::Result<i64> {
    republications::create_selection(connection).await?;
    if args.missing {
        let broker = boot.broker().await?;
        let unchecked = verify::store_missing(context, connection, &broker).await?;
        republications::select_missing(connection).await?;
        return Ok(unchecked);
    }
    if args.ids.is_empty() {
        let (from, before) = args.range();
        republications::select_range(connection, args.account.as_deref(), from, before).await?;
        return Ok(0);
    }
    if let Some(unknown) = republications::unknown_ids(connection, &args.ids).await?.first() {
        anyhow::bail!("there is no transaction {unknown}; nothing was published again");
    }
    republications::select_ids(connection, &args.ids).await?;
    Ok(0)
}

/// Puts the selected events into the outbox, batch by batch, until the end or a stop.
async fn publish(
    context: &Context,
    connection: &mut Connection,
    args: &RepublishArgs,
    result: &mut RunResult,
) -> anyhow::Result<()> {
    let (run, total) = (Uuid::now_v7(), result.selected.transactions);
    let (by, selection) = (args.by.clone().unwrap_or_else(user_and_host), args.describe());
    republications::start(connection, run, &by, &selection, total).await?;
    result.run = Some(run);
    let bar = progress_bar(u64::try_from(total).unwrap_or_default(), PROGRESS);
    while result.republished < total && !context.stop.is_requested() {
        let page = republications::page(connection, result.republished, BATCH_ROWS_MAX).await?;
        let events = page.iter().map(event).collect::<Result<Vec<_>, _>>()?;
        let count = i64::try_from(events.len())?;
        anyhow::ensure!(count > 0, "transactions disappeared during the run {run}");
        republications::insert_batch(connection, run, events).await?;
        result.republished += count;
        bar.set_position(u64::try_from(result.republished)?);
    }
    bar.finish_and_clear();
    tracing::info!(%run, selection, republished = result.republished, by, "put events into the outbox again");
    Ok(())
}

fn event(transaction: &Transaction) -> Result<Republished, RepositoryError> {
    let value = encode_transaction_created(transaction)
        .map_err(|error| RepositoryError::Corrupt { what: "transaction", detail: error.to_string() })?;
    Ok(Republished {
        event_id: transaction.id,
        key: transaction.posting.account_id.as_str().as_bytes().to_vec(),
        value,
        headers: republished_headers(transaction),
    })
}

/// The result of a run, or of a dry run.
struct RunResult {
    selected: Selected,
    accounts_unchecked: i64,
    /// The first selected transactions.
    first: Vec<Transaction>,
    /// The id in the audit.
    run: Option<Uuid>,
    republished: i64,
}

#[derive(Serialize)]
struct TransactionOut<'a> {
    transaction_id: Uuid,
    account_id: &'a str,
    account_seq: i64,
    created_at: String,
}

impl RunResult {
    fn print(&self, installation: &Installation, args: &RepublishArgs) -> anyhow::Result<()> {
        installation.print(args.output)?;
        match args.output {
            OutputFormat::Json => print_json(&installation.json(self.json(args))?)?,
            OutputFormat::Table => self.print_table()?,
        }
        Ok(())
    }

    fn first(&self) -> impl Iterator<Item = TransactionOut<'_>> {
        self.first.iter().map(|transaction| TransactionOut {
            transaction_id: transaction.id,
            account_id: transaction.posting.account_id.as_str(),
            account_seq: transaction.account_seq,
            created_at: format_moment(transaction.created_at),
        })
    }

    fn json(&self, args: &RepublishArgs) -> serde_json::Value {
        serde_json::json!({
            "dry_run": args.dry_run, "selected": self.selected.transactions, "accounts": self.selected.accounts,
            "republished": self.republished, "run": self.run, "accounts_unchecked": self.accounts_unchecked,
            "first": self.first().collect::<Vec<_>>(),
        })
    }

    fn print_table(&self) -> std::io::Result<()> {
        let Selected { transactions, accounts } = self.selected;
        if transactions > 0 {
            let mut rows = table(["transaction", "account", "seq", "created"]);
            for TransactionOut { transaction_id, account_id, account_seq, created_at } in self.first() {
                rows.add_row([
                    transaction_id.to_string(),
                    account_id.into(),
                    account_seq.to_string(),
                    created_at,
                ]);
            }
            print_text(&rows)?;
        }
        if transactions > SHOWN_MAX {
            print_text(format_args!("… and {} more", transactions - SHOWN_MAX))?;
        }
        match self.run {
            Some(run) => print_text(format_args!(
                "{} of {transactions} events of {accounts} accounts are in the outbox again (run {run} of the audit)",
                self.republished
            ))?,
            None if transactions == 0 => print_text("nothing to publish again")?,
            None => print_text(format_args!(
                "dry run: {transactions} events of {accounts} accounts would be published again"
            ))?,
        }
        if self.accounts_unchecked > 0 {
            print_text(format_args!(
                "the topic lacks its start, because of retention or a switch of the broker: {} accounts without any event \
                 there were not checked; publish their events with --account",
                self.accounts_unchecked
            ))?;
        }
        Ok(())
    }
}
