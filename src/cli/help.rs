//! The help texts: commands in groups, environment variables in the long form only, and the same texts as man pages.

use std::{fs, io, path::Path};

use clap::Command;

/// The groups of the overview. A command that no group names is in the last one.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Roles", &["serve", "relay", "consume-risk", "aggregate"]),
    (
        "Operate",
        &[
            "migrate",
            "verify",
            "import",
            "health",
            "broker",
            "topics",
            "lanes",
            "consumers",
            "dlq",
            "republish",
        ],
    ),
    ("Risk", &["risk"]),
    ("Try", &["demo", "dev", "simulate"]),
];
const OTHER_GROUP: &str = "Other";

/// Adds the overview of all commands. `-h` hides the environment variables, `--help` shows them without their values.
pub(super) fn with_help(command: Command, is_short: bool) -> Command {
    let overview = overview(&command);
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{overview}Options:\n{{options}}{{after-help}}"
    );
    without_values(command, is_short).help_template(template)
}

fn without_values(command: Command, is_short: bool) -> Command {
    command
        .mut_args(|arg| arg.hide_env_values(true).hide_env(is_short))
        .mut_subcommands(|subcommand| without_values(subcommand, is_short))
}

fn overview(command: &Command) -> String {
    let width = command.get_subcommands().map(|subcommand| subcommand.get_name().len()).max().unwrap_or(0);
    let line = |subcommand: &Command| {
        let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
        format!("  {:width$}  {about}\n", subcommand.get_name())
    };
    let grouped = GROUPS.iter().flat_map(|(_, names)| names.iter());
    let grouped: Vec<&str> = grouped.copied().collect();
    let mut text = String::new();
    for (heading, names) in GROUPS {
        let subcommands = names.iter().filter_map(|name| command.find_subcommand(name));
        text += &format!("{heading}:\n{}\n", subcommands.map(line).collect::<String>());
    }
    let others = command.get_subcommands().filter(|subcommand| !grouped.contains(&subcommand.get_name()));
    text + &format!("{OTHER_GROUP}:\n{}\n", others.map(line).collect::<String>())
}

/// Writes one man page for each command into a directory and returns their number.
pub(super) fn write_man_pages(command: Command, directory: &Path) -> io::Result<usize> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(without_values(command, false), directory)?;
    Ok(fs::read_dir(directory)?.count())
}
