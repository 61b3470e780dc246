//! Finds the variable behind a value that a flag refuses. The message of clap names only the flag.

use clap::{
    Command, Error,
    error::{ContextKind, ContextValue},
};

/// Returns the name of the variable with the refused value.
pub(super) fn variable_of(command: &Command, error: &Error) -> Option<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    // `--rate <RATE>`
    let flag = context(ContextKind::InvalidArg)?.split(' ').next()?.strip_prefix("--")?;
    search(command, flag, context(ContextKind::InvalidValue)?)
}

fn search(command: &Command, flag: &str, value: &str) -> Option<String> {
    let own = command.get_arguments().filter(|known| known.get_long() == Some(flag));
    let mut variables = own.filter_map(|known| known.get_env());
    let found = variables.find(|name| std::env::var_os(name).is_some_and(|set| set == value));
    match found {
        Some(name) => Some(name.to_string_lossy().into_owned()),
        None => command.get_subcommands().find_map(|inner| search(inner, flag, value)),
    }
}
