//! What people see: tables or JSON on stdout, progress on stderr and only where stderr is a terminal.

use std::{
    fmt::Display,
    io::{self, Write},
    time::Duration,
};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

const REDRAW_INTERVAL: Duration = Duration::from_millis(200);

/// How a command prints its result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// One JSON document, for programs.
    Json,
}

/// A table with a heading row, plain enough to be piped.
pub fn table<T: Into<comfy_table::Cell>>(headings: impl IntoIterator<Item = T>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(headings.into_iter().map(Into::into));
    table
}

/// Prints a line, or several, on stdout. A reader that has seen enough (`| head`) is no error.
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

/// A progress bar of `length` units, drawn as `template` says (see indicatif); draws nothing where stderr is no
/// terminal. The message goes last, as `{wide_msg}`: what a narrow terminal has no room for is cut, and not wrapped.
pub fn progress_bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(REDRAW_INTERVAL);
    bar
}
