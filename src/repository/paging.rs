//! Pages of transactions and assessments: which rows a page may hold, and where the next page begins.
//!
//! ```text
//! PageRequest ──▶ bounds of the key ──▶ query, newest first ──▶ scanned rows ──▶ Page { rows, next: Cursor }
//! ```
//!
//! - The key of a list is `account_seq` for one account, and the transaction's id for the whole ledger. Ids sort by
//!   time, so both lists are in order of time.
//! - A filter that no index serves is applied row by row, along the index of the key. Such a scan reads at most 5,000
//!   rows (a literal in each `*_scan.sql`, since the planner needs it), so the cost of a page has a bound.
//! - A scan that ends before the page is full gives a short page with a cursor. For this, the query also returns the
//!   last row of a full scan when that row does not match.

use std::ops::Range;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use diesel::{QueryableByName, sql_types::Bool};
use uuid::Uuid;

use super::{Connection, RepositoryError, accounts::seq_range};
use crate::domain::{AccountId, transaction_id_floor};

/// Which rows of a list a page may hold, newest first.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// The account, or None for the whole ledger.
    pub account_id: Option<AccountId>,
    /// Only transactions created at or after this moment.
    pub from: Option<DateTime<Utc>>,
    /// Only transactions created before this moment.
    pub to: Option<DateTime<Utc>>,
    /// The greatest number of rows in the page.
    pub limit: i64,
    /// The last row of the page before: this page begins after it. None for the first page.
    pub before: Option<Cursor>,
}

/// The key of the row after which a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// A row in the list of one account.
    AccountSeq(i64),
    /// A row in the list of the whole ledger.
    TransactionId(Uuid),
}

/// A page of rows, newest first.
#[derive(Debug)]
pub struct Page<Row> {
    /// At most `PageRequest::limit` rows. Fewer, or none, if the scan reached its bound.
    pub rows: Vec<Row>,
    /// The cursor of the next page, or None at the end of the list.
    pub next: Option<Cursor>,
}

/// A row that a query for a page returns.
#[derive(QueryableByName)]
pub(super) struct ScannedRow<Row> {
    #[diesel(embed)]
    pub(super) found: Row,
    #[diesel(sql_type = Bool)]
    pub(super) matches: bool,
    /// Whether the scan reached its bound with this row.
    #[diesel(sql_type = Bool)]
    pub(super) is_last: bool,
}

impl<Row> ScannedRow<Row> {
    /// Returns the rows of a query that has no filter to apply.
    pub(super) fn all_matching(rows: Vec<Row>) -> Vec<Self> {
        rows.into_iter().map(|found| Self { found, matches: true, is_last: false }).collect()
    }

    /// Converts the row.
    pub(super) fn try_map<To, Error>(
        self,
        convert: impl FnOnce(Row) -> Result<To, Error>,
    ) -> Result<ScannedRow<To>, Error> {
        let Self { found, matches, is_last } = self;
        Ok(ScannedRow { found: convert(found)?, matches, is_last })
    }
}

impl PageRequest {
    /// Returns the range of `account_seq` that the page may hold.
    pub(super) async fn account_bounds(
        &self,
        connection: &mut Connection,
        account_id: &AccountId,
    ) -> Result<Range<i64>, RepositoryError> {
        let (from, to) = self.bounds();
        let range = seq_range(connection, account_id, from, to).await?;
        let end = match self.before {
            Some(Cursor::AccountSeq(account_seq)) => account_seq.min(range.end),
            _ => range.end,
        };
        Ok(range.start..end)
    }

    /// Returns the range of transaction ids that the page may hold.
    pub(super) fn ledger_bounds(&self) -> Range<Uuid> {
        let (from, to) = self.bounds();
        let from_id = from.map_or(Uuid::nil(), transaction_id_floor);
        let to_id = to.map_or(Uuid::max(), transaction_id_floor);
        let before_id = match self.before {
            Some(Cursor::TransactionId(id)) => id.min(to_id),
            _ => to_id,
        };
        from_id..before_id
    }

    /// Returns how many rows a query should return: one more than the page holds, which tells whether another page
    /// follows.
    pub(super) fn rows_read(&self) -> i64 {
        self.limit + 1
    }

    /// Returns `from` and `to` in whole microseconds, as rows have them. The fields keep the given moments, since a
    /// cursor is bound to them.
    fn bounds(&self) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        (self.from.map(round_up), self.to.map(round_up))
    }

    /// Returns the cursor of a row with these keys.
    fn cursor(&self, (account_seq, transaction_id): (i64, Uuid)) -> Cursor {
        match self.account_id {
            Some(_) => Cursor::AccountSeq(account_seq),
            None => Cursor::TransactionId(transaction_id),
        }
    }
}

/// Rounds a moment up to a whole microsecond. Rows have no finer time, so the comparison with them stays the same.
fn round_up(moment: DateTime<Utc>) -> DateTime<Utc> {
    let whole = moment.trunc_subsecs(6);
    let rest = TimeDelta::microseconds(i64::from(whole < moment));
    whole.checked_add_signed(rest).unwrap_or(whole)
}

impl<Row> Page<Row> {
    /// Builds a page from the rows of a query, which may hold one matching row more than the page. `keys` returns a row's
    /// `account_seq` and transaction id.
    pub(super) fn of(
        scanned: impl IntoIterator<Item = ScannedRow<Row>>,
        request: &PageRequest,
        keys: impl Fn(&Row) -> (i64, Uuid),
    ) -> Self {
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let mut page = Self { rows: Vec::with_capacity(limit), next: None };
        for ScannedRow { found, matches, is_last } in scanned {
            if matches && page.rows.len() == limit {
                page.next = page.rows.last().map(|row| request.cursor(keys(row)));
                return page;
            }
            if is_last {
                page.next = Some(request.cursor(keys(&found)));
            }
            if matches {
                page.rows.push(found);
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(rows: &[(i64, bool, bool)]) -> (Vec<i64>, Option<i64>) {
        let scanned = rows.iter().map(|&(found, matches, is_last)| ScannedRow { found, matches, is_last });
        let account_id = Some(AccountId::parse("a").expect("valid"));
        let page =
            Page::of(scanned, &PageRequest { account_id, limit: 2, ..PageRequest::default() }, |row| {
                (*row, Uuid::nil())
            });
        let next = page.next.map(|next| match next {
            Cursor::AccountSeq(account_seq) => account_seq,
            Cursor::TransactionId(id) => panic!("{id} belongs to the list of the ledger"),
        });
        (page.rows, next)
    }

    #[test]
    fn the_next_page_begins_after_the_last_row_or_after_the_scan() {
        assert_eq!(page(&[]), (vec![], None));
        assert_eq!(page(&[(9, true, false), (8, true, false)]), (vec![9, 8], None));
        assert_eq!(page(&[(9, true, false), (8, true, false), (7, true, false)]), (vec![9, 8], Some(8)));
        assert_eq!(page(&[(9, true, false), (4, false, true)]), (vec![9], Some(4)));
        assert_eq!(page(&[(9, true, false), (4, true, true)]), (vec![9, 4], Some(4)));
        // The page is full before the scan's last row, so the next page begins with that row.
        assert_eq!(page(&[(9, true, false), (8, true, false), (4, true, true)]), (vec![9, 8], Some(8)));
        assert_eq!(page(&[(9, true, false), (8, true, false), (4, false, true)]), (vec![9, 8], Some(4)));
    }
}
