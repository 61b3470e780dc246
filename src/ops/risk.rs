//! `ledger risk`: checks rule files, and assesses transactions whose events are lost.

mod assess;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Subcommand;

use crate::{
    config::Overrides,
    consume_risk,
    risk::{Mode, Ruleset, SHIPPED_RULES},
    runtime::{Context, print_text},
};

/// The subcommands of `ledger risk`.
#[derive(Debug, Subcommand)]
pub enum RiskCommand {
    /// Assess transactions whose events are lost, from the ledger; exit 1 if any still fails
    #[command(
        after_help = "For transactions that stay pending after positions were reset past a gap. Each transaction that has neither an assessment nor a dead letter is scored with the configured rules. The assessment and its event are one commit, so it is safe to run this twice, or while a consumer runs.\n\nExamples:\n  ledger risk assess --dry-run\n  ledger risk assess --from 2026-11-24T10:00:00Z --to 2026-11-24T12:00:00Z"
    )]
    Assess(assess::AssessArgs),
    /// Validate a rule file: format, names, types, and the cost of each rule
    #[command(
        after_help = "Examples:\n  ledger risk check my-rules.toml\n  ledger risk check   # the built-in rules"
    )]
    Check {
        /// The rule file; by default the built-in rules
        #[arg(value_name = "FILE", env = "LEDGER_RISK_CHECK_FILE")]
        file: Option<PathBuf>,
    },
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

/// Runs the command. A refused rule file is exit code 1, with line, field and reason on stderr.
pub async fn run(context: Context, command: &RiskCommand) -> anyhow::Result<ExitCode> {
    match command {
        RiskCommand::Assess(args) => assess::run(&context, args).await,
        RiskCommand::Check { file } => check(file.as_deref()),
    }
}

fn check(file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let text = match file {
        None => SHIPPED_RULES.to_owned(),
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
    };
    let name = file.map_or_else(|| "the built-in rules".into(), |path| path.display().to_string());
    match Ruleset::parse_with(&text, &|name| consume_risk::read_list_file(file, name)) {
        Ok(ruleset) => {
            print_text(summary(&name, &ruleset))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("error: {name}: {error}\n{}", error.excerpt());
            Ok(ExitCode::FAILURE)
        }
    }
}

fn summary(name: &str, ruleset: &Ruleset) -> String {
    let count = |mode| ruleset.summaries().filter(|rule| rule.mode == mode).count();
    let lists: String = ruleset
        .list_sizes()
        .iter()
        .map(|(list, entries)| format!("\nlist {list}: {entries} entries"))
        .collect();
    format!(
        "{name}: valid, ruleset {}: {} live, {} shadow and {} disabled rules over {} features, at most {} steps an event{lists}",
        ruleset.version(),
        count(Mode::Live),
        count(Mode::Shadow),
        count(Mode::Off),
        ruleset.feature_names().count(),
        ruleset.cost()
    )
}
