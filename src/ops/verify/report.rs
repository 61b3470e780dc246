//! What was checked and what differs, for people and for programs.

use serde::Serialize;

use crate::{
    repository::verification::Found,
    runtime::{OutputFormat, print_json, table},
};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing differs.
    Ok,
    /// Something does.
    Differs,
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A short name that stays.
    pub name: &'static str,
    /// What must hold.
    pub rule: &'static str,
    /// How it went.
    pub status: Status,
    /// How much was looked at.
    pub checked: i64,
    /// How much differs.
    pub differences: i64,
    /// Up to ten differences, in words.
    pub examples: Vec<String>,
    /// What else to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Check {
    /// A check of `checked` things, of which `found` differ.
    pub fn of(name: &'static str, rule: &'static str, checked: i64, found: Found) -> Self {
        let status = if found.differences == 0 { Status::Ok } else { Status::Differs };
        let Found { differences, examples } = found;
        Self { name, rule, status, checked, differences, examples, note: None }
    }

    /// Adds what else to know.
    pub fn with_note(self, note: String) -> Self {
        Self { note: Some(note), ..self }
    }
}

/// All checks in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl Report {
    pub(super) fn push(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// Whether nothing differs.
    pub fn is_fine(&self) -> bool {
        self.checks.iter().all(|check| check.status == Status::Ok)
    }

    /// The check of that name.
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// Names of the checks that found differences.
    pub fn differing(&self) -> Vec<&'static str> {
        self.checks.iter().filter(|check| check.status == Status::Differs).map(|check| check.name).collect()
    }

    /// Prints all of it on stdout.
    pub fn print(&self, output: OutputFormat) -> anyhow::Result<()> {
        if output == OutputFormat::Json {
            print_json(&serde_json::json!({ "ok": self.is_fine(), "checks": self.checks }))?;
            return Ok(());
        }
        let mut checks = table(["check", "what must hold", "checked", "differ", ""]);
        for check in &self.checks {
            checks.add_row([
                check.name,
                check.rule,
                &check.checked.to_string(),
                &check.differences.to_string(),
                check.note.as_deref().unwrap_or_default(),
            ]);
        }
        println!("{checks}");
        for check in self.checks.iter().filter(|check| check.status == Status::Differs) {
            println!("\n{}: {} differ", check.name, check.differences);
            for example in &check.examples {
                println!("  {example}");
            }
        }
        println!("{}", if self.is_fine() { "nothing differs" } else { "\nsomething differs" });
        Ok(())
    }
}
