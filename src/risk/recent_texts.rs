//! The different texts of an account's recent rows, each with the last row that has it.
//!
//! A window ends with the newest row, so a text is in the window exactly if its last row is. One list therefore serves
//! windows of any width, and rows need not keep their texts.

use std::collections::VecDeque;

use super::rows::TextHash;

/// The texts in the order of their last rows.
#[derive(Debug, Default)]
pub(super) struct RecentTexts(VecDeque<(TextHash, i64)>);

impl RecentTexts {
    /// Adds the text of a new row. The search takes time in proportion to the number of different texts.
    pub fn add(&mut self, text: TextHash, account_seq: i64) {
        if let Some(index) = self.0.iter().rposition(|(known, _)| *known == text) {
            self.0.remove(index);
        }
        self.0.push_back((text, account_seq));
    }

    /// Returns how many different texts the rows from `start` have.
    pub fn count_from(&self, start: i64) -> usize {
        self.0.len() - self.0.partition_point(|(_, account_seq)| *account_seq < start)
    }

    /// Drops the texts that only rows before `start` have.
    pub fn forget_before(&mut self, start: i64) {
        while self.0.front().is_some_and(|(_, account_seq)| *account_seq < start) {
            self.0.pop_front();
        }
    }

    /// Returns how many bytes of memory the texts take.
    pub fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<(TextHash, i64)>()
    }
}
