//! `ledger risk`: for the people who write rules.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Subcommand;

use crate::risk::{Mode, Ruleset, SHIPPED_RULES};

/// What can be done with rules.
#[derive(Debug, Subcommand)]
pub enum RiskCommand {
    /// Validate a rule file: shape, names, expressions, and a trial on made-up transactions
    #[command(
        after_help = "Examples:\n  ledger risk check my-rules.toml\n  ledger risk check   # what the binary carries"
    )]
    Check {
        /// The rule file; without it, the rules that the binary carries
        #[arg(value_name = "FILE", env = "LEDGER_RISK_CHECK_FILE")]
        file: Option<PathBuf>,
    },
}

/// Runs the command. A file that is refused is exit code 1, with line, field and reason on stderr.
pub fn run(command: &RiskCommand) -> anyhow::Result<ExitCode> {
    match command {
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
    match Ruleset::parse(&text) {
        Ok(ruleset) => {
            println!("{}", summary(&name, &ruleset));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("error: {name}: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn summary(name: &str, ruleset: &Ruleset) -> String {
    let count = |mode| ruleset.summaries().filter(|rule| rule.mode == mode).count();
    format!(
        "{name}: valid, ruleset {}: {} live, {} shadow and {} disabled rules over {} features",
        ruleset.version(),
        count(Mode::Live),
        count(Mode::Shadow),
        count(Mode::Off),
        ruleset.feature_names().count()
    )
}
