//! What pages have in common: the part of a list that one is of, in the order of one account's numbers or, over all
//! accounts, of the transactions' ids, which sort by time; and the place to go on from.
//!
//! By filters that no index serves the rows are walked in that order and looked at one by one, and the walk has an end, so
//! that a page takes its time and not that of the whole table.
//!
//! A page whose walk ends before it is full is answered short, with the place to go on from. So that one statement
//! says both, the last row of a whole walk is answered even where it does not match.

use std::ops::Range;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use diesel::{QueryableByName, sql_types::Bool};
use uuid::Uuid;

use super::{Connection, RepositoryError, accounts::seq_range};
use crate::domain::{AccountId, transaction_id_floor};

/// Which rows of a list a page may hold, newest first.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// Of one account only.
    pub account_id: Option<AccountId>,
    /// Of transactions created at or after.
    pub from: Option<DateTime<Utc>>,
    /// Of transactions created before.
    pub to: Option<DateTime<Utc>>,
    /// Rows wanted.
    pub limit: i64,
    /// Only rows behind this place of the same list.
    pub before: Option<Cursor>,
}

/// A place in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// In one account's: the number there.
    AccountSeq(i64),
    /// In that of all accounts: the transaction.
    TransactionId(Uuid),
}

/// A page, newest first.
#[derive(Debug)]
pub struct Page<Row> {
    /// At most as many as were asked for; fewer, even none, where the walk ended before.
    pub rows: Vec<Row>,
    /// Where to go on; None at the end.
    pub next: Option<Cursor>,
}

/// A row that was walked over.
#[derive(QueryableByName)]
pub(super) struct ScannedRow<Row> {
    #[diesel(embed)]
    pub(super) found: Row,
    #[diesel(sql_type = Bool)]
    pub(super) matches: bool,
    /// Whether it is the last one that the walk may look at.
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
        let (from_seq, to_seq) = seq_range(connection, account_id, from, to).await?;
        let before_seq = match self.before {
            Some(Cursor::AccountSeq(account_seq)) => account_seq.min(to_seq),
            _ => to_seq,
        };
        Ok(from_seq..before_seq)
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

    /// `from` and `to` as rows can be compared with them. A cursor is bound to the bounds as they were given, so those
    /// stay as they are.
    fn bounds(&self) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        (self.from.map(next_microsecond), self.to.map(next_microsecond))
    }

    fn cursor(&self, (account_seq, transaction_id): (i64, Uuid)) -> Cursor {
        match self.account_id {
            Some(_) => Cursor::AccountSeq(account_seq),
            None => Cursor::TransactionId(transaction_id),
        }
    }
}

/// The first whole microsecond that is not before the moment. Rows have no finer time, so what was created at or after
/// the one was created at or after the other.
fn next_microsecond(moment: DateTime<Utc>) -> DateTime<Utc> {
    let whole = moment.trunc_subsecs(6);
    let pause = TimeDelta::microseconds(i64::from(whole < moment));
    whole.checked_add_signed(pause).unwrap_or(whole)
}

impl<Row> Page<Row> {
    /// Of what was read: one matching row more than wanted where there are so many, and the last row of the walk. `keys`
    /// gives a row's number in its account and its transaction.
    pub(super) fn of(
        walked: impl IntoIterator<Item = ScannedRow<Row>>,
        request: &PageRequest,
        keys: impl Fn(&Row) -> (i64, Uuid),
    ) -> Self {
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let mut page = Self { rows: Vec::with_capacity(limit), next: None };
        for ScannedRow { found, matches, is_last } in walked {
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
        let walked = rows.iter().map(|&(found, matches, is_last)| ScannedRow { found, matches, is_last });
        let account_id = Some(AccountId::parse("a").expect("valid"));
        let page = Page::of(walked, &PageRequest { account_id, limit: 2, ..PageRequest::default() }, |row| {
            (*row, Uuid::nil())
        });
        let next = page.next.map(|next| match next {
            Cursor::AccountSeq(account_seq) => account_seq,
            Cursor::TransactionId(id) => panic!("{id} is of no account"),
        });
        (page.rows, next)
    }

    #[test]
    fn a_page_goes_on_behind_its_last_row_or_behind_the_walk() {
        assert_eq!(page(&[]), (vec![], None));
        assert_eq!(page(&[(9, true, false), (8, true, false)]), (vec![9, 8], None));
        assert_eq!(page(&[(9, true, false), (8, true, false), (7, true, false)]), (vec![9, 8], Some(8)));
        assert_eq!(page(&[(9, true, false), (4, false, true)]), (vec![9], Some(4)));
        assert_eq!(page(&[(9, true, false), (4, true, true)]), (vec![9, 4], Some(4)));
        // The walk's last row is one too many: the next page begins with it.
        assert_eq!(page(&[(9, true, false), (8, true, false), (4, true, true)]), (vec![9, 8], Some(8)));
        assert_eq!(page(&[(9, true, false), (8, true, false), (4, false, true)]), (vec![9, 8], Some(4)));
    }
}
