//! Tables of commands. On a terminal a table has a border and fits the width: long texts wrap first, then optional columns
//! are left out and named below the table. In a pipe it is plain: aligned columns, one line a row, nothing left out.

use std::{
    fmt::{self, Display, Formatter},
    io::{self, IsTerminal},
};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, presets};
use unicode_width::UnicodeWidthStr;

/// The narrowest that a wrapping column becomes before optional columns are left out.
const WRAPPED_WIDTH_MIN: usize = 20;
/// The width of a terminal that does not tell its size.
const UNKNOWN_WIDTH: u16 = 80;
/// The border and the two spaces beside the content of a column.
const WIDTH_BESIDE_CONTENT: usize = 3;

/// A table that knows which columns wrap and which may be left out.
#[derive(Debug)]
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
    wrapping: Vec<&'static str>,
    optional: Vec<&'static str>,
}

/// Returns a table with a heading row.
pub fn table(headings: impl IntoIterator<Item: Into<String>>) -> Table {
    Table {
        headings: headings.into_iter().map(Into::into).collect(),
        rows: Vec::new(),
        wrapping: Vec::new(),
        optional: Vec::new(),
    }
}

impl Table {
    /// Names the columns that hold sentences. They wrap before another column does.
    pub fn wrapping(mut self, headings: impl IntoIterator<Item = &'static str>) -> Self {
        self.wrapping.extend(headings);
        self
    }

    /// Names the columns that a narrow terminal leaves out, the first one first.
    pub fn optional(mut self, headings: impl IntoIterator<Item = &'static str>) -> Self {
        self.optional.extend(headings);
        self
    }

    /// Adds a row with one cell for each heading.
    pub fn add_row(&mut self, cells: impl IntoIterator<Item: Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    fn column(&self, index: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().filter_map(move |row| row.get(index)).map(String::as_str)
    }

    fn is_numeric(&self, index: usize) -> bool {
        let is_number =
            |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit()) || cell.strip_prefix('-').is_some();
        let mut cells = self.column(index).filter(|cell| !cell.is_empty()).peekable();
        cells.peek().is_some()
            && cells.all(|cell| {
                is_number(cell) && cell.chars().all(|c| matches!(c, '0'..='9' | '.' | ',' | '-' | '+'))
            })
    }

    fn content_width(&self, index: usize) -> usize {
        let lines = self.column(index).flat_map(str::lines).map(UnicodeWidthStr::width);
        let heading = self.headings.get(index).map_or(0, |heading| heading.width());
        lines.max().unwrap_or(0).max(heading)
    }

    fn wraps(&self, index: usize) -> bool {
        self.headings.get(index).is_some_and(|heading| self.wrapping.contains(&heading.as_str()))
    }

    /// Returns the least width of these columns at which no column wraps except the wrapping ones.
    fn least_width(&self, columns: &[usize]) -> usize {
        let width = |index: &usize| match self.content_width(*index) {
            width if self.wraps(*index) => width.min(WRAPPED_WIDTH_MIN),
            width => width,
        };
        columns.iter().map(|index| width(index) + WIDTH_BESIDE_CONTENT).sum::<usize>() + 1
    }

    /// Returns the columns that are shown at this width, and the headings of the others. Empty columns are left
    /// out first, and their headings are not returned.
    fn fitting(&self, terminal_width: usize) -> (Vec<usize>, Vec<&'static str>) {
        let mut columns: Vec<usize> = (0..self.headings.len()).collect();
        let mut left_out = Vec::new();
        if self.least_width(&columns) > terminal_width {
            columns.retain(|index| self.column(*index).any(|cell| !cell.is_empty()));
        }
        for heading in &self.optional {
            if self.least_width(&columns) <= terminal_width {
                break;
            }
            columns.retain(|index| self.headings.get(*index).is_none_or(|name| name != heading));
            left_out.push(*heading);
        }
        (columns, left_out)
    }

    fn build(&self, columns: &[usize]) -> comfy_table::Table {
        let pick = |cells: &[String]| -> Vec<String> {
            columns.iter().map(|index| cells.get(*index).cloned().unwrap_or_default()).collect()
        };
        let mut table = comfy_table::Table::new();
        table.set_header(pick(&self.headings));
        table.add_rows(self.rows.iter().map(|row| pick(row)));
        for (column, index) in table.column_iter_mut().zip(columns) {
            if self.is_numeric(*index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }

    /// Renders the table for a terminal of this width.
    fn for_terminal(&self, terminal_width: u16) -> String {
        let (columns, left_out) = self.fitting(usize::from(terminal_width));
        let mut table = self.build(&columns);
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(terminal_width);
        if self.least_width(&columns) <= usize::from(terminal_width) {
            for (column, index) in table.column_iter_mut().zip(&columns) {
                if !self.wraps(*index) {
                    column.set_constraint(ColumnConstraint::ContentWidth);
                }
            }
        }
        if left_out.is_empty() {
            return table.to_string();
        }
        format!("{table}\nleft out at this width: {}", left_out.join(", "))
    }

    /// Renders the table for a pipe or a file.
    fn plain(&self) -> String {
        let columns: Vec<usize> = (0..self.headings.len()).collect();
        let mut table = self.build(&columns);
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text = table.to_string();
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !io::stdout().is_terminal() {
            return f.write_str(&self.plain());
        }
        let width = terminal_size::terminal_size().map_or(UNKNOWN_WIDTH, |(columns, _)| columns.0);
        f.write_str(&self.for_terminal(width))
    }
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::{Table, table};

    fn lanes() -> Table {
        let mut lanes = table(["lane", "state", "owner", "epoch", "rows", "error"])
            .wrapping(["error"])
            .optional(["epoch", "owner"]);
        let error = "Kafka refuses the records: the topic ledger.transactions.v1 is full";
        lanes.add_row(["0", "owned", "host-1:4711:9f3e", "12", "1000+", error]);
        lanes.add_row(["11", "unowned", "", "3", "7", ""]);
        lanes
    }

    #[test]
    fn a_wide_terminal_shows_every_column_on_one_line_a_row() {
        insta::assert_snapshot!(lanes().for_terminal(120));
    }

    #[test]
    fn a_usual_terminal_wraps_long_texts() {
        insta::assert_snapshot!(lanes().for_terminal(80));
    }

    #[test]
    fn a_narrow_terminal_leaves_out_optional_columns_and_names_them() {
        insta::assert_snapshot!(lanes().for_terminal(60));
    }

    #[test]
    fn an_empty_column_is_the_first_to_go() {
        let mut checks = table(["check", "rule", "note"]).wrapping(["rule", "note"]);
        checks.add_row(["durability", "PostgreSQL flushes commits to disk", ""]);
        assert!(checks.for_terminal(70).contains("note"));
        let narrow = checks.for_terminal(40);
        assert!(!narrow.contains("note") && !narrow.contains("left out"), "{narrow}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 40..=160 {
            let text = lanes().for_terminal(width);
            assert!(text.lines().all(|line| line.width() <= usize::from(width)), "{width}:\n{text}");
        }
    }

    #[test]
    fn a_pipe_gets_plain_aligned_columns() {
        insta::assert_snapshot!(lanes().plain());
    }
}
