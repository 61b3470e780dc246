//! Pages of history, newest first: of one account by its sequence numbers, of the whole ledger by id, which sorts by
//! time.
//!
//! Every page is a walk along an index. Without filters it is as long as the page; by a level that is not `low` it goes
//! along the index of assessments; any other filter is applied row by row, over a bounded number of rows (see
//! `walk`).

use bigdecimal::BigDecimal;
use diesel::sql_types::{Nullable, Numeric, SmallInt, Text};

use super::row::TransactionRow;
use crate::{
    domain::{AccountId, Direction, RiskState, Transaction},
    repository::{
        Bind, Connection, RepositoryError,
        paging::{Page, PageRequest, ScannedRow, Unbounded, walk_rows_max},
        statement,
    },
};

/// What a page of history is asked for.
#[derive(Debug, Clone)]
pub struct TransactionFilter {
    /// Of these rows.
    pub page: PageRequest,
    /// Credits or debits only.
    pub direction: Option<Direction>,
    /// At least this much, in the currency's own unit.
    pub min_amount: Option<BigDecimal>,
    /// At most this much, in the currency's own unit.
    pub max_amount: Option<BigDecimal>,
    /// Only transactions with this level, or without an assessment.
    pub risk_level: Option<RiskState>,
}

/// What a page answers of `$rows`, which are named `t` and in the order of `place`. The currency is probed for each row
/// of the page (OFFSET 0 keeps it so): with a join, the plan for parameters that PostgreSQL does not know read the
/// whole range and hashed it for the sake of fifty rows. The last bind is the number of rows.
macro_rules! page_of {
    ($($rows:expr),+) => {
        concat!(
            "SELECT t.account_id, a.currency, t.account_seq, t.id, t.amount, t.balance_after, t.created_at, t.reverses,
                    t.idempotency_key, t.counterparty, t.description, t.metadata::text AS metadata, t.matches, t.is_last
             FROM (",
            $($rows),+,
            ") AS t CROSS JOIN LATERAL (
               SELECT currency FROM accounts WHERE accounts.account_id = t.account_id OFFSET 0) AS a
             WHERE t.matches OR t.is_last ORDER BY t.place DESC LIMIT ?"
        )
    };
}

/// All rows of `transactions` within some bounds.
macro_rules! plain {
    ($place:literal, $bounds:literal) => {
        page_of!(
            "SELECT t.*, t.",
            $place,
            " AS place, true AS matches, false AS is_last FROM transactions t WHERE ",
            $bounds
        )
    };
}

/// How many minor units the currency of row `t` has. The usual numbers are found in hashes that are made once, since
/// a join of the two tables for each row costs ten times as much.
macro_rules! minor_units {
    () => {
        "SELECT CASE WHEN a.currency IN (SELECT code FROM currencies WHERE decimals = 2) THEN 100
                     WHEN a.currency IN (SELECT code FROM currencies WHERE decimals = 0) THEN 1
                     ELSE (SELECT 10::numeric ^ decimals FROM currencies WHERE code = a.currency) END
         FROM accounts a WHERE a.account_id = t.account_id"
    };
}

/// The rows of a walk with the filters applied. Four binds before those of the walk: the amount's sign or 0, least and
/// greatest amount or null, risk level or null. Each is applied only if it is asked for.
macro_rules! filtered {
    ($($walk:expr),+) => {
        page_of!(
            "SELECT t.*, coalesce(
               (SELECT (f.sign = 0 OR sign(t.amount) = f.sign)
                   AND (f.least IS NULL OR abs(t.amount) >= f.least * (",
            minor_units!(),
            "))
                   AND (f.greatest IS NULL OR abs(t.amount) <= f.greatest * (",
            minor_units!(),
            "))
                   AND (f.level IS NULL OR f.level = coalesce((
                          SELECT r.risk_level FROM risk_assessments r
                          WHERE r.account_id = t.account_id AND r.account_seq = t.account_seq), 'pending'))
                FROM (SELECT ?::smallint, ?::numeric, ?::numeric, ?::text) AS f (sign, least, greatest, level)),
               false) AS matches
             FROM (",
            $($walk),+,
            ") AS t"
        )
    };
}

/// A walk over `transactions` within some bounds.
macro_rules! walk {
    ($place:literal, $bounds:literal) => {
        filtered!(
            "SELECT t.*, t.",
            $place,
            " AS place, row_number() OVER (ORDER BY t.",
            $place,
            " DESC) = ",
            walk_rows_max!(),
            " AS is_last FROM transactions t WHERE ",
            $bounds,
            " ORDER BY t.",
            $place,
            " DESC LIMIT ",
            walk_rows_max!()
        )
    };
}

/// A walk over the transactions of a level that is not `low`, along the index of assessments.
const LEVEL_WALK: &str = filtered!(
    "SELECT t.*, r.transaction_id AS place,
            row_number() OVER (ORDER BY r.transaction_id DESC) = ",
    walk_rows_max!(),
    " AS is_last
     FROM risk_assessments r CROSS JOIN LATERAL (
       SELECT * FROM transactions WHERE account_id = r.account_id AND account_seq = r.account_seq OFFSET 0) AS t
     WHERE r.risk_level = ? AND r.risk_level <> 'low' AND r.transaction_id >= ? AND r.transaction_id < ?
     ORDER BY r.transaction_id DESC LIMIT ",
    walk_rows_max!()
);

/// A page.
pub async fn page(
    connection: &mut Connection,
    filter: &TransactionFilter,
) -> Result<Page<Transaction>, RepositoryError> {
    let walked = match &filter.page.account_id {
        Some(account_id) => account_page(connection, account_id, filter).await?,
        None => ledger_page(connection, filter).await?,
    };
    let walked = walked.into_iter().map(|ScannedRow { found, matches, is_last }| {
        Ok(ScannedRow { found: found.into_transaction()?, matches, is_last })
    });
    let walked = walked.collect::<Result<Vec<_>, RepositoryError>>()?;
    Ok(Page::of(walked, &filter.page, |row| (row.account_seq, row.id)))
}

impl TransactionFilter {
    fn is_plain(&self) -> bool {
        self.direction.is_none()
            && self.min_amount.is_none()
            && self.max_amount.is_none()
            && self.risk_level.is_none()
    }

    fn sign(&self) -> i16 {
        match self.direction {
            Some(Direction::Credit) => 1,
            Some(Direction::Debit) => -1,
            None => 0,
        }
    }

    /// Gives the statement the first four values of `filtered!`.
    fn applied<'a>(&'a self, sql: &'static str, level: Option<&'a str>) -> impl Unbounded + 'a {
        statement(sql)
            .bind::<SmallInt, _>(self.sign())
            .bind::<Nullable<Numeric>, _>(self.min_amount.clone())
            .bind::<Nullable<Numeric>, _>(self.max_amount.clone())
            .bind::<Nullable<Text>, _>(level)
    }
}

async fn account_page(
    connection: &mut Connection,
    account_id: &AccountId,
    filter: &TransactionFilter,
) -> Result<Vec<ScannedRow<TransactionRow>>, RepositoryError> {
    let page = &filter.page;
    if filter.is_plain() {
        let query =
            statement(plain!("account_seq", "t.account_id = ? AND t.account_seq >= ? AND t.account_seq < ?"));
        return page.read_account(connection, account_id, query).await;
    }
    let query = filter.applied(
        walk!("account_seq", "t.account_id = ? AND t.account_seq >= ? AND t.account_seq < ?"),
        filter.risk_level.map(RiskState::as_str),
    );
    page.read_account(connection, account_id, query).await
}

async fn ledger_page(
    connection: &mut Connection,
    filter: &TransactionFilter,
) -> Result<Vec<ScannedRow<TransactionRow>>, RepositoryError> {
    let page = &filter.page;
    if filter.is_plain() {
        return page.read_all(connection, statement(plain!("id", "t.id >= ? AND t.id < ?"))).await;
    }
    match filter.risk_level.map(RiskState::as_str) {
        Some(level @ ("medium" | "high")) => {
            page.read_all(connection, filter.applied(LEVEL_WALK, None).bind::<Text, _>(level)).await
        }
        level => {
            page.read_all(connection, filter.applied(walk!("id", "t.id >= ? AND t.id < ?"), level)).await
        }
    }
}
