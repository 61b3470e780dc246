//! The checks of the schema and of the ledger against itself.

use super::report::{Check, Report};
use crate::repository::{
    Connection, RepositoryError, migrations, server_properties,
    verification::{self, Findings},
};

/// Adds the checks.
pub(super) async fn check(connection: &mut Connection, report: &mut Report) -> Result<(), RepositoryError> {
    report.push(durability(connection).await?);
    check_schema(connection, report).await?;
    check_rows(connection, report).await?;
    check_sums(connection, report).await
}

/// Returns a check without differences: the start refuses a server that is not durable unless the configuration accepts
/// it.
async fn durability(connection: &mut Connection) -> Result<Check, RepositoryError> {
    let rule = "PostgreSQL flushes commits to disk (fsync, full_page_writes)";
    let check = Check::of("durability", rule, 2, Findings::default());
    let settings = server_properties(connection).await?.not_durable;
    Ok(match settings {
        Some(settings) => check.with_note(format!("{settings}, accepted by database.accept_data_loss")),
        None => check,
    })
}

async fn check_schema(connection: &mut Connection, report: &mut Report) -> Result<(), RepositoryError> {
    report.push(Check::of(
        "append-only",
        "a trigger refuses changes of transactions",
        1,
        verification::append_only_errors(connection).await?,
    ));
    let newer = migrations::newer_version(connection).await?;
    let (expected, errors) = verification::protection_errors(connection).await?;
    let check = Check::of(
        "schema",
        "constraints, unique indexes and NOT NULLs are those of the migrations, and valid",
        expected,
        errors,
    );
    report.push(with_version(check, newer.as_deref()));
    let counts = verification::table_counts(connection).await?;
    let check = Check::of(
        "currencies",
        "each has the decimals that this binary knows",
        counts.currencies,
        verification::currency_errors(connection).await?,
    );
    report.push(with_version(check, newer.as_deref()));
    Ok(())
}

/// Adds a note to a check that compares the schema with the migrations of this binary, if the schema is newer.
fn with_version(check: Check, newer: Option<&str>) -> Check {
    match newer {
        Some(version) => check.with_note(format!(
            "the schema is newer ({version}) than this binary: a difference may be a change of a later migration"
        )),
        None => check,
    }
}

async fn check_rows(connection: &mut Connection, report: &mut Report) -> Result<(), RepositoryError> {
    let counts = verification::table_counts(connection).await?;
    report.push(Check::of(
        "idempotency keys",
        "an account has each key once",
        counts.transactions,
        verification::duplicate_keys(connection).await?,
    ));
    report.push(Check::of(
        "ids",
        "each transaction id is made of the transaction's time",
        counts.transactions,
        verification::id_errors(connection).await?,
    ));
    report.push(Check::of(
        "sequences",
        "transactions of an account are numbered 1, 2, 3 … in the order of their times, with running balances",
        counts.transactions,
        verification::sequence_errors(connection).await?,
    ));
    report.push(Check::of(
        "future",
        "no transaction and no assessment is later than the clock of the database",
        counts.transactions + counts.assessments,
        verification::future_rows(connection).await?,
    ));
    Ok(())
}

async fn check_sums(connection: &mut Connection, report: &mut Report) -> Result<(), RepositoryError> {
    let counts = verification::table_counts(connection).await?;
    report.push(Check::of(
        "balances",
        "each balance is the sum of the transactions of its account",
        counts.accounts,
        verification::balance_mismatches(connection).await?,
    ));
    report.push(Check::of(
        "reversals",
        "each reverses one transaction of its account, once",
        counts.reversals,
        verification::reversal_errors(connection).await?,
    ));
    Ok(())
}
