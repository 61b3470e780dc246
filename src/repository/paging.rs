//! What pages have in common: the part of a list that one is of, in the order of one account's numbers or, over all
//! accounts, of the transactions' ids, which sort by time; and the place to go on from.
//!
//! By filters that no index serves the rows are walked in that order and looked at one by one, and the walk has an end, so
//! that a page takes its time and not that of the whole table.
//!
//! A page whose walk ends before it is full is answered short, with the place to go on from. So that one statement
//! says both, the last row of a whole walk is answered even where it does not match.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use diesel::{
    QueryableByName,
    pg::Pg,
    query_builder::QueryFragment,
    sql_types::{BigInt, Bool, Text, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{Bind, Connection, RepositoryError, accounts::seq_range};
use crate::domain::{AccountId, transaction_id_floor};

/// Rows that a page looks at, at the most. As text, for SQL.
macro_rules! walk_rows_max {
    () => {
        "5000"
    };
}
pub(super) use walk_rows_max;

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

/// A statement that has its values up to those of the bounds.
pub(super) trait Unbounded: Bind + QueryFragment<Pg> + Send {}

impl<Query: Bind + QueryFragment<Pg> + Send> Unbounded for Query {}

impl PageRequest {
    /// What the statement finds in one account. Its last four binds are the account, the first number, the one behind the
    /// last, and how many rows.
    pub(super) async fn read_account<Row: QueryableByName<Pg> + Send + 'static>(
        &self,
        connection: &mut Connection,
        account_id: &AccountId,
        query: impl Unbounded,
    ) -> Result<Vec<ScannedRow<Row>>, RepositoryError> {
        let (from, to) = self.bounds();
        let (from_seq, to_seq) = seq_range(connection, account_id, from, to).await?;
        let before_seq = match self.before {
            Some(Cursor::AccountSeq(account_seq)) => account_seq.min(to_seq),
            _ => to_seq,
        };
        let rows = query
            .bind::<Text, _>(account_id.as_str())
            .bind::<BigInt, _>(from_seq)
            .bind::<BigInt, _>(before_seq)
            .bind::<BigInt, _>(self.limit + 1)
            .load(connection)
            .await?;
        Ok(rows)
    }

    /// What the statement finds in all accounts. Its last three binds are the first id, the one behind the last, and how
    /// many rows.
    pub(super) async fn read_all<Row: QueryableByName<Pg> + Send + 'static>(
        &self,
        connection: &mut Connection,
        query: impl Unbounded,
    ) -> Result<Vec<ScannedRow<Row>>, RepositoryError> {
        let (from, to) = self.bounds();
        let from_id = from.map_or(Uuid::nil(), transaction_id_floor);
        let to_id = to.map_or(Uuid::max(), transaction_id_floor);
        let before_id = match self.before {
            Some(Cursor::TransactionId(id)) => id.min(to_id),
            _ => to_id,
        };
        let rows = query
            .bind::<SqlUuid, _>(from_id)
            .bind::<SqlUuid, _>(before_id)
            .bind::<BigInt, _>(self.limit + 1)
            .load(connection)
            .await?;
        Ok(rows)
    }

    /// `from` and `to` as rows can be compared with them. A cursor is bound to the bounds as they were given, so those
    /// stay as they are.
    fn bounds(&self) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        (self.from.map(next_microsecond), self.to.map(next_microsecond))
    }

    fn place(&self, (account_seq, transaction_id): (i64, Uuid)) -> Cursor {
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
        span: &PageRequest,
        keys: impl Fn(&Row) -> (i64, Uuid),
    ) -> Self {
        let limit = usize::try_from(span.limit).unwrap_or(0);
        let mut page = Self { rows: Vec::with_capacity(limit), next: None };
        for ScannedRow { found, matches, is_last } in walked {
            if matches && page.rows.len() == limit {
                page.next = page.rows.last().map(|row| span.place(keys(row)));
                return page;
            }
            if is_last {
                page.next = Some(span.place(keys(&found)));
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
