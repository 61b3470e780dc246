//! `ledger risk`: checks rule files, and assesses transactions whose events are lost.

mod assess;
mod check;

use std::process::ExitCode;

use clap::Subcommand;

use crate::{config::Overrides, runtime::Context};

/// The subcommands of `ledger risk`.
#[derive(Debug, Subcommand)]
pub enum RiskCommand {
    /// Assess transactions whose events are lost, from the ledger; exit 1 if any still fails
    #[command(
        after_help = "For transactions that stay pending after positions were reset past a gap. Each transaction that has neither an assessment nor a dead letter is scored with the configured rules. The assessment and its event are one commit, so it is safe to run this twice, or while a consumer runs.\n\nExamples:\n  ledger risk assess --dry-run\n  ledger risk assess --from 2026-11-24T10:00:00Z --to 2026-11-24T12:00:00Z"
    )]
    Assess(assess::AssessArgs),
    /// Validate a rule file: format, names, types, cost, and the examples in it; exit 1 if one gives another result
    #[command(
        after_help = "Examples:\n  ledger risk check my-rules.toml\n  ledger risk check   # the built-in rules"
    )]
    Check(check::CheckArgs),
}

impl RiskCommand {
    /// Returns the configuration values that the flags override.
    pub fn overrides(&self) -> Overrides {
        let Self::Assess(assess::AssessArgs { rules: Some(rules), .. }) = self else {
            return Overrides::new();
        };
        vec![("risk.rules".to_owned(), rules.display().to_string())]
    }
}

/// Runs the command. A refused rule file is exit code 1.
pub async fn run(context: Context, command: &RiskCommand) -> anyhow::Result<ExitCode> {
    match command {
        RiskCommand::Assess(args) => assess::run(&context, args).await,
        RiskCommand::Check(args) => check::run(args),
    }
}
