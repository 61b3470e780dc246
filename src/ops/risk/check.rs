//! `ledger risk check`: checks a rule file and runs its examples.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use crate::{
    consume_risk,
    risk::{
        ExampleActual, ExampleRun, Expectation, Mode, RuleFileError, RuleSummary, Ruleset, SHIPPED_RULES,
    },
    runtime::{OutputFormat, Table, print_json, print_text, table},
};

/// The columns of the table of rules.
const RULE_COLUMNS: usize = 8;

/// Flags of `ledger risk check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The rule file; by default the built-in rules
    #[arg(value_name = "FILE", env = "LEDGER_RISK_CHECK_FILE")]
    file: Option<PathBuf>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t, env = "LEDGER_RISK_CHECK_OUTPUT")]
    output: OutputFormat,
}

/// Runs the command. The exit code is 1 if the file is refused or an example gives another result than it expects.
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let file = args.file.as_deref();
    let text = match file {
        None => SHIPPED_RULES.to_owned(),
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
    };
    let name = file.map_or_else(|| "the built-in rules".into(), |path| path.display().to_string());
    match Ruleset::parse_with(&text, &|name| consume_risk::read_list_file(file, name)) {
        Ok(ruleset) => {
            let runs = ruleset.run_examples();
            match args.output {
                OutputFormat::Table => print_summary(&name, &ruleset, &runs)?,
                OutputFormat::Json => print_json(&json_of(&name, &ruleset, &runs))?,
            }
            let is_passed = runs.iter().all(ExampleRun::is_as_expected);
            Ok(if is_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) => {
            match args.output {
                OutputFormat::Table => eprintln!("error: {name}: {error}\n{}", error.excerpt()),
                OutputFormat::Json => print_json(&refusal(&name, &error))?,
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn print_summary(name: &str, ruleset: &Ruleset, runs: &[ExampleRun<'_>]) -> std::io::Result<()> {
    let count = |mode| ruleset.summaries().filter(|rule| rule.mode == mode).count();
    let lists: String = ruleset
        .list_sizes()
        .iter()
        .map(|(list, entries)| format!("\nlist {list}: {entries} entries"))
        .collect();
    print_text(format_args!(
        "{name}: valid, ruleset {}: {} live, {} shadow and {} disabled rules over {} features, at most {} steps an event{lists}",
        ruleset.version(),
        count(Mode::Live),
        count(Mode::Shadow),
        count(Mode::Off),
        ruleset.feature_names().count(),
        ruleset.cost()
    ))?;
    if ruleset.summaries().next().is_some() {
        print_text(format_args!("\n{}\n", rules_table(ruleset, runs)))?;
    }
    let different: Vec<&ExampleRun<'_>> = runs.iter().filter(|run| !run.is_as_expected()).collect();
    if !runs.is_empty() {
        let as_expected = runs.len() - different.len();
        print_text(format_args!("examples: {as_expected} of {} give the expected result", runs.len()))?;
    }
    if different.is_empty() {
        return Ok(());
    }
    let mut rows =
        table(["line", "rule", "example", "expected", "actual"]).wrapping(["example", "expected", "actual"]);
    for run in different {
        let [expected, actual] = texts(run.expected, &run.actual);
        let rule = run.rule.unwrap_or("all");
        rows.add_row([run.line.to_string(), rule.to_owned(), run.name.to_owned(), expected, actual]);
    }
    print_text(format_args!("\n{rows}"))
}

/// Lists the rules. Columns that are empty for all rules are left out.
fn rules_table(ruleset: &Ruleset, runs: &[ExampleRun<'_>]) -> Table {
    let row = |rule: RuleSummary<'_>| {
        let examples = runs.iter().filter(|run| run.rule == Some(rule.id)).count();
        let notes = rule.notes;
        [
            ("rule", rule.id.to_owned()),
            ("mode", rule.mode.as_str().to_owned()),
            ("score", rule.score.to_string()),
            ("examples", examples.to_string()),
            (
                "suppressions",
                Some(rule.suppressions)
                    .filter(|count| *count > 0)
                    .map_or_else(String::new, |count| count.to_string()),
            ),
            ("tags", notes.tags.join(", ")),
            ("description", notes.description.clone().unwrap_or_default()),
            ("source", notes.source.clone().unwrap_or_default()),
        ]
    };
    let rows: Vec<_> = ruleset.summaries().map(row).collect();
    let is_used =
        |index: usize| rows.iter().any(|row| row.get(index).is_some_and(|(_, cell)| !cell.is_empty()));
    let used: Vec<usize> = (0..RULE_COLUMNS).filter(|index| is_used(*index)).collect();
    let headings = rows.first().into_iter().flat_map(|row| used.iter().filter_map(|index| row.get(*index)));
    let mut table = table(headings.map(|(heading, _)| *heading))
        .wrapping(["tags", "description", "source"])
        .optional(["source", "description", "tags"]);
    for row in &rows {
        table.add_row(used.iter().filter_map(|index| row.get(*index)).map(|(_, cell)| cell.clone()));
    }
    table
}

/// Returns what an example expects and its result, of which only what the example mentions.
fn texts(expected: &Expectation, actual: &ExampleActual) -> [String; 2] {
    let fires = |fires: bool| if fires { "fires" } else { "does not fire" }.to_owned();
    let rules = |rules: &Vec<String>| match rules.as_slice() {
        [] => "no rule fires".to_owned(),
        rules => format!("rules {}", rules.join(", ")),
    };
    let score = |score: i16| format!("score {score}");
    let wanted = [
        expected.fires.map(fires),
        expected.rules.as_ref().map(rules),
        expected.score.map(score),
        expected.level.map(|level| level.to_string()),
    ];
    let found = [
        actual.error.as_ref().map(|error| format!("fails: {error}")).or(actual.fires.map(fires)),
        actual.rules.as_ref().filter(|_| expected.rules.is_some()).map(rules),
        actual.score.filter(|_| expected.score.is_some()).map(score),
        actual.level.filter(|_| expected.level.is_some()).map(|level| level.to_string()),
    ];
    [wanted, found].map(|parts| parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

fn json_of(name: &str, ruleset: &Ruleset, runs: &[ExampleRun<'_>]) -> Value {
    let rules: Vec<Value> = ruleset
        .summaries()
        .map(|rule| {
            let notes = rule.notes;
            json!({
                "id": rule.id, "mode": rule.mode.as_str(), "score": rule.score, "tags": notes.tags,
                "description": notes.description, "source": notes.source, "suppressions": rule.suppressions,
            })
        })
        .collect();
    let lists: Vec<Value> = ruleset
        .list_sizes()
        .iter()
        .map(|(list, entries)| json!({ "name": list, "entries": entries }))
        .collect();
    let example = |run: &ExampleRun<'_>| {
        let Expectation { fires, rules, score, level } = run.expected;
        let actual = &run.actual;
        json!({
            "rule": run.rule,
            "name": run.name,
            "line": run.line,
            "as_expected": run.is_as_expected(),
            "expected": { "fires": fires, "rules": rules, "score": score, "level": level },
            "actual": {
                "fires": actual.fires, "rules": actual.rules, "score": actual.score, "level": actual.level,
                "error": actual.error,
            },
        })
    };
    json!({
        "file": name,
        "valid": true,
        "ruleset": &*ruleset.version(),
        "steps": ruleset.cost(),
        "features": ruleset.feature_names().collect::<Vec<_>>(),
        "lists": lists,
        "rules": rules,
        "examples": runs.iter().map(example).collect::<Vec<_>>(),
    })
}

fn refusal(name: &str, error: &RuleFileError) -> Value {
    let RuleFileError { line, column, field, message, .. } = error;
    json!({
        "file": name,
        "valid": false,
        "error": { "line": line, "column": column, "field": field, "message": message },
    })
}
