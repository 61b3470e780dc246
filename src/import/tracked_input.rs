//! The input of the CSV reader: limits the length of a row, knows the line of each row, and finds text after a closing
//! quotation mark.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

/// A quotation mark that is never closed makes the rest of the file one row, which needs a limit.
const ROW_BYTES_MAX: u64 = 1024 * 1024;

/// The input of the CSV reader. It fails when a row is longer than [`ROW_BYTES_MAX`], and it knows on which line each row
/// begins. The CSV reader's own line numbers are wrong after a CR LF or a blank line.
pub(super) struct TrackedInput<R> {
    inner: R,
    separator: u8,
    /// None if quotation marks have no meaning.
    quote: Option<u8>,
    /// The bytes read for the current row.
    pub(super) row_bytes: u64,
    /// All bytes read.
    bytes: u64,
    line: u64,
    previous: u8,
    cell: CellState,
    /// The position after the first closing quotation mark that has text after it.
    text_after_quote: Option<u64>,
    /// The first byte and the number of each line that is not blank, from the current row on. Bytes count from 0, lines
    /// from 1.
    lines: VecDeque<(u64, u64)>,
}

/// The state of the cell before the next byte.
#[derive(Clone, Copy)]
enum CellState {
    Start,
    Unquoted,
    Quoted,
    /// After a quotation mark that ends the cell, or that is the first of two.
    AfterQuote,
}

impl<R> TrackedInput<R> {
    pub(super) fn new(inner: R, separator: u8, quote: Option<u8>) -> Self {
        Self {
            inner,
            separator,
            quote,
            row_bytes: 0,
            bytes: 0,
            line: 1,
            previous: b'\n',
            cell: CellState::Start,
            text_after_quote: None,
            lines: VecDeque::new(),
        }
    }

    fn track(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match (self.previous, byte) {
                (b'\r', b'\n') => {}
                (_, b'\r' | b'\n') => self.line += 1,
                (b'\r' | b'\n', _) => self.lines.push_back((self.bytes, self.line)),
                _ => {}
            }
            self.previous = *byte;
            self.bytes += 1;
            self.track_quotes(*byte);
        }
    }

    fn track_quotes(&mut self, byte: u8) {
        let Some(quote) = self.quote else { return };
        self.cell = match self.cell {
            CellState::Quoted if byte == quote => CellState::AfterQuote,
            CellState::Quoted => CellState::Quoted,
            CellState::Start | CellState::AfterQuote if byte == quote => CellState::Quoted,
            _ if byte == self.separator || matches!(byte, b'\r' | b'\n') => CellState::Start,
            // The byte order mark at the beginning of some files is no text.
            CellState::Start if self.bytes <= 3 && matches!(byte, 0xef | 0xbb | 0xbf) => CellState::Start,
            CellState::AfterQuote => {
                self.text_after_quote.get_or_insert(self.bytes);
                CellState::Unquoted
            }
            CellState::Start | CellState::Unquoted => CellState::Unquoted,
        };
    }

    /// Returns whether there is text after a closing quotation mark in the first `read` bytes.
    pub(super) fn has_text_after_quote(&self, read: u64) -> bool {
        self.text_after_quote.is_some_and(|text_after_quote| text_after_quote <= read)
    }

    /// Returns the line of the row that begins at a byte, according to the CSV reader. Forgets all earlier lines.
    pub(super) fn line_of(&mut self, begins: u64) -> u64 {
        while self.lines.front().is_some_and(|(byte, _)| *byte < begins) {
            self.lines.pop_front();
        }
        self.lines.front().map_or(self.line, |(_, line)| *line)
    }
}

impl<R: Read> Read for TrackedInput<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if self.row_bytes > ROW_BYTES_MAX {
            return Err(io::Error::other(format!(
                "is longer than {ROW_BYTES_MAX} bytes; is a closing quotation mark missing?"
            )));
        }
        self.row_bytes += u64::try_from(read).unwrap_or(0);
        self.track(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail with these planted bugs: a doubled quotation mark that closes a cell, and a byte order mark that is
    /// text.
    #[test]
    fn text_after_a_closing_quotation_mark_is_found_in_its_row() {
        let misplaced_in = |text: &str| {
            let mut rows = csv::ReaderBuilder::new()
                .flexible(true)
                .has_headers(false)
                .buffer_capacity(5)
                .from_reader(TrackedInput::new(text.as_bytes(), b',', Some(b'"')));
            let mut record = csv::ByteRecord::new();
            let mut text_after_quote = Vec::new();
            while rows.read_byte_record(&mut record).expect("rows") {
                text_after_quote.push(rows.get_ref().has_text_after_quote(rows.position().byte()));
            }
            text_after_quote
        };
        for whole in
            ["\u{feff}\"a\",b\r\n", "\"a\"\"b\"\n", "a\"b,\"\",\"\"\"\"\n", "\"a\nb\",\"c,\"", "\"\"\r\"\"\r"]
        {
            assert!(!misplaced_in(whole).contains(&true), "{whole:?}");
        }
        assert_eq!(misplaced_in("a,\"b\nc,\"d\"\ne,f\n"), [true, true]);
        assert_eq!(misplaced_in("a,b\nc,\"1\"0.00\n"), [false, true]);
        assert_eq!(misplaced_in("a,b\n\"c\" ,d\n"), [false, true]);
        assert_eq!(misplaced_in("\u{feff}\"a\"b\n"), [true]);
    }

    /// Returns the line of each row, with the given buffer size.
    fn lines(text: &str, capacity: usize) -> Vec<u64> {
        let mut rows = csv::ReaderBuilder::new()
            .flexible(true)
            .has_headers(false)
            .buffer_capacity(capacity)
            .from_reader(TrackedInput::new(text.as_bytes(), b',', Some(b'"')));
        let mut record = csv::ByteRecord::new();
        let mut lines = Vec::new();
        while rows.read_byte_record(&mut record).expect("rows") {
            lines.push(rows.get_mut().line_of(record.position().expect("a position").byte()));
        }
        lines
    }

    /// Seen to fail with the CSV reader's own lines, which are 1, 1, 3 in the first text.
    #[test]
    fn a_row_begins_on_the_line_of_its_first_cell() {
        for text in ["a,b\r\n\"1\r\n2\",3\r\n4,5\r\n", "a,b\n\"1\n2\",3\n4,5\n", "a,b\r\"1\r2\",3\r4,5"] {
            for capacity in [1, 2, 5, 64] {
                assert_eq!(lines(text, capacity), [1, 2, 4], "{text:?} by {capacity}");
            }
        }
        for text in ["a\n\n\nb\nc", "a\r\n\r\n\r\nb\r\nc", "\u{feff}a\n\n\nb\nc\n\n"] {
            for capacity in [1, 2, 5, 64] {
                assert_eq!(lines(text, capacity), [1, 4, 5], "{text:?} by {capacity}");
            }
        }
    }
}
