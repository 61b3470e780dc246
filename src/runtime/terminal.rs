//! Output of commands: tables or JSON on stdout, progress on stderr if that is a terminal.

use std::{
    fmt::Display,
    io::{self, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

const REDRAW_INTERVAL: Duration = Duration::from_millis(200);

/// The exit code of a command with arguments that contradict each other; clap uses it too.
pub const EXIT_MISUSED: u8 = 2;

/// How a command prints its result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// A table for people.
    #[default]
    Table,
    /// One JSON document for programs.
    Json,
}

/// Prints one or more lines on stdout. A reader that closes the pipe (`| head`) is not an error.
pub fn print_text(text: impl Display) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// Prints a value as indented JSON on stdout.
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    print_text(serde_json::to_string_pretty(value)?)
}

/// Returns a progress bar of `length` units in the form of `template` (see indicatif). Draws nothing if stderr is not a
/// terminal. Put the message last, as `{wide_msg}`: a narrow terminal then cuts it and does not wrap it.
pub fn progress_bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(REDRAW_INTERVAL);
    bar
}
