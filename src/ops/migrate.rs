//! `ledger migrate`: applies the missing migrations, and moves sequences that are behind their tables.
//!
//! Guarantees: a long migration shows its progress and the sessions that it waits for, as a bar on a terminal and as log
//! lines elsewhere; SIGTERM and Ctrl-C cancel its statement in PostgreSQL too.

use std::{io::IsTerminal, pin::Pin, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::{
    repository::{
        Connection, RepositoryError, grants,
        migrations::{self, MigrationProgress, Migrator},
        sequences::{self, SequenceBehind},
    },
    runtime::{Boot, Context, print_text, progress_bar},
};

const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// The pause between two log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// The longest wait for a report of the progress.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the statement is cancelled until the migration ends: a request between two statements has no effect.
const CANCEL_INTERVAL: Duration = Duration::from_millis(200);
/// The longest wait for the end of a cancelled migration. After it, the process ends, which cancels the statement too.
const CANCEL_WAIT: Duration = Duration::from_secs(2);
const BAR: &str = "{bar:20} {wide_msg}";

/// Flags of `ledger migrate`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct MigrateArgs {
    /// After the migrations, give this user of PostgreSQL exactly the rights that the other commands need
    #[arg(long, env = "LEDGER_MIGRATE_GRANTS", value_name = "ROLE")]
    pub grants: Option<String>,
}

/// Runs the command and prints the applied versions.
pub async fn run(context: Context, args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let boot = Boot::new(&context, "migrate");
    let connection = boot.connect_unmigrated().await?;
    let mut migrator = tokio::select! {
        biased;
        () = context.stop.requested() => bail!("stopped before anything was applied"),
        locked = Migrator::lock(connection) => locked?,
    };
    let watch = Watch { boot: &boot, process_id: migrator.process_id().await? };
    let applied = apply(migrator, &context, &watch).await?;
    match applied.len() {
        0 => print_text("the schema is up to date")?,
        _ => applied.iter().try_for_each(|version| print_text(format_args!("applied {version}")))?,
    }
    let mut connection = boot.connect().await?;
    for SequenceBehind { sequence, last_id, highest_id } in sequences::advance(&mut connection).await? {
        print_text(format_args!(
            "moved the sequence {sequence} from {last_id} to {highest_id}, the highest id of its table"
        ))?;
    }
    // An empty variable means that there is no other user.
    if let Some(role) = args.grants.filter(|role| !role.is_empty()) {
        grants::grant(&mut connection, &role).await?;
        print_text(format_args!("granted {role} its rights on {} tables", grants::tables_granted()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Applies the migrations, shows the progress, and cancels them when the command is stopped.
async fn apply(migrator: Migrator, context: &Context, watch: &Watch<'_>) -> anyhow::Result<Vec<String>> {
    let mut work = Box::pin(migrator.apply());
    let mut ticks = interval_at(Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut display = ProgressDisplay::default();
    let mut connection = None;
    loop {
        tokio::select! {
            biased;
            applied = &mut work => {
                display.clear();
                return Ok(applied?);
            }
            () = context.stop.requested() => {
                display.clear();
                return watch.cancel(work.as_mut()).await;
            }
            _ = ticks.tick() => match timeout(PROGRESS_TIMEOUT, watch.progress(&mut connection)).await {
                Ok(Ok(progress)) => display.show(progress.as_ref()),
                Ok(Err(error)) => tracing::debug!(%error, "the progress is unknown"),
                Err(_) => connection = None,
            },
        }
    }
}

/// Another session that watches the migration.
struct Watch<'a> {
    boot: &'a Boot<'a>,
    process_id: i32,
}

impl Watch<'_> {
    async fn progress(
        &self,
        connection: &mut Option<Connection>,
    ) -> Result<Option<MigrationProgress>, RepositoryError> {
        let mut open = match connection.take() {
            Some(open) => open,
            None => self.boot.connect_unchecked().await?,
        };
        let progress = migrations::progress(&mut open, self.process_id).await?;
        *connection = Some(open);
        Ok(progress)
    }

    /// Cancels the statement of the migration until it ends.
    async fn cancel(
        &self,
        mut work: Pin<&mut impl Future<Output = Result<Vec<String>, RepositoryError>>>,
    ) -> anyhow::Result<Vec<String>> {
        let deadline = Instant::now() + CANCEL_WAIT;
        let mut connection = timeout(CANCEL_WAIT, self.boot.connect_unchecked())
            .await
            .context("stopped; no connection to cancel the migration")??;
        while Instant::now() < deadline {
            timeout(CANCEL_WAIT, migrations::cancel(&mut connection, self.process_id)).await??;
            match timeout(CANCEL_INTERVAL, &mut work).await {
                Ok(Ok(applied)) => return Ok(applied),
                Ok(Err(error)) => bail!("stopped: {error}; `ledger migrate` continues there"),
                Err(_) => {}
            }
        }
        bail!("stopped; PostgreSQL has not yet ended the migration")
    }
}

/// Shows the progress: as a bar on a terminal, as log lines elsewhere.
#[derive(Default)]
struct ProgressDisplay {
    bar: Option<ProgressBar>,
    logged_at: Option<Instant>,
}

impl ProgressDisplay {
    fn show(&mut self, progress: Option<&MigrationProgress>) {
        let Some(progress) = progress else { return };
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| progress_bar(100, BAR));
            bar.set_position(u64::try_from(progress.percent.unwrap_or(0)).unwrap_or(0));
            bar.set_message(progress.to_string());
        } else if self.logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            self.logged_at = Some(Instant::now());
            tracing::info!(%progress, "a migration is still running");
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
