//! The report: the checks and their differences, as text or as JSON.

use serde::Serialize;

use super::super::installation::Installation;
use crate::{
    repository::verification::{Example, Findings},
    runtime::{OutputFormat, print_json, print_text, table},
};

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// No differences.
    Ok,
    /// There are differences.
    Differs,
}

/// A check and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The name; scripts may depend on it.
    pub name: &'static str,
    /// The rule that must hold.
    pub rule: &'static str,
    /// The result.
    pub status: Status,
    /// The number of things that were checked.
    pub checked: i64,
    /// The number of differences.
    pub differences: i64,
    /// Some of the differences.
    pub examples: Vec<Example>,
    /// Further information.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Check {
    /// Makes a check of `checked` things from its findings.
    pub fn of(name: &'static str, rule: &'static str, checked: i64, found: Findings) -> Self {
        let status = if found.differences == 0 { Status::Ok } else { Status::Differs };
        let Findings { differences, examples } = found;
        Self { name, rule, status, checked, differences, examples, note: None }
    }

    /// Adds further information.
    pub fn with_note(self, note: String) -> Self {
        Self { note: Some(note), ..self }
    }
}

/// All checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The database and the broker that were checked.
    #[serde(flatten)]
    installation: Installation,
    /// The checks, in order.
    pub checks: Vec<Check>,
    /// The most examples of a check.
    #[serde(skip)]
    examples_max: usize,
}

impl Report {
    /// Starts the report of an installation.
    pub(super) fn new(installation: Installation, examples_max: usize) -> Self {
        Self { installation, checks: Vec::new(), examples_max }
    }

    /// Adds a check, with at most the examples that were asked for.
    pub(super) fn push(&mut self, mut check: Check) {
        check.examples.truncate(self.examples_max);
        self.checks.push(check);
    }

    /// Returns whether no check found a difference.
    pub fn is_fine(&self) -> bool {
        self.checks.iter().all(|check| check.status == Status::Ok)
    }

    /// Returns the check of this name.
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// Returns the names of the checks that found differences.
    pub fn differing(&self) -> Vec<&'static str> {
        self.checks.iter().filter(|check| check.status == Status::Differs).map(|check| check.name).collect()
    }

    /// Prints the report on stdout.
    pub fn print(&self, output: OutputFormat) -> anyhow::Result<()> {
        if output == OutputFormat::Json {
            let result = serde_json::json!({ "ok": self.is_fine(), "checks": self.checks });
            print_json(&self.installation.json(result)?)?;
            return Ok(());
        }
        self.installation.print(output)?;
        let mut checks = table(["check", "what must hold", "checked", "differ", "note"])
            .wrapping(["what must hold", "note"]);
        for check in &self.checks {
            checks.add_row([
                check.name,
                check.rule,
                &check.checked.to_string(),
                &check.differences.to_string(),
                check.note.as_deref().unwrap_or_default(),
            ]);
        }
        print_text(checks)?;
        for check in self.checks.iter().filter(|check| check.status == Status::Differs) {
            print_text(format_args!("\n{}: {} differ", check.name, check.differences))?;
            for example in &check.examples {
                print_text(format_args!("  {}", example.text))?;
            }
        }
        print_text(if self.is_fine() { "nothing differs" } else { "\nsomething differs" })?;
        Ok(())
    }
}
