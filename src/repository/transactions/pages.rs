//! Pages of transactions, newest first. The page of an account is sorted by `account_seq`, the page of the whole ledger
//! by id, which contains the time.
//!
//! Every page is read along an index:
//!
//! | filters | index | statement |
//! | --- | --- | --- |
//! | none | of the key | a query of the DSL that reads as many rows as the page holds |
//! | `medium` or `high`, whole ledger | of assessments by level | `level_scan.sql` |
//! | any other | of the key | `account_scan.sql`, `ledger_scan.sql` |
//!
//! A scan applies the filters row by row and reads a bounded number of rows; see [`paging`](crate::repository::paging).

use bigdecimal::BigDecimal;
use diesel::{
    prelude::*,
    sql_types::{BigInt, Nullable, Numeric, SmallInt, Text, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;

use super::row::TransactionRow;
use crate::{
    domain::{AccountId, Direction, RiskState, Transaction},
    repository::{
        Bind, Connection, RepositoryError,
        paging::{Page, PageRequest, ScannedRow},
        schema::transactions,
        statement,
    },
};

/// Which transactions a page may hold.
#[derive(Debug, Clone)]
pub struct TransactionFilter {
    /// The account, the time range and the size of the page.
    pub page: PageRequest,
    /// Credits or debits only.
    pub direction: Option<Direction>,
    /// The least amount, in the currency's own unit.
    pub min_amount: Option<BigDecimal>,
    /// The greatest amount, in the currency's own unit.
    pub max_amount: Option<BigDecimal>,
    /// Only transactions with this level, or without an assessment.
    pub risk_level: Option<RiskState>,
}

/// Returns a page of transactions.
pub async fn page(
    connection: &mut Connection,
    filter: &TransactionFilter,
) -> Result<Page<Transaction>, RepositoryError> {
    let scanned = match &filter.page.account_id {
        Some(account_id) => account_page(connection, account_id, filter).await?,
        None => ledger_page(connection, filter).await?,
    };
    let scanned = scanned.into_iter().map(|row| row.try_map(TransactionRow::into_transaction));
    let scanned = scanned.collect::<Result<Vec<_>, RepositoryError>>()?;
    Ok(Page::of(scanned, &filter.page, |row| (row.account_seq, row.id)))
}

impl TransactionFilter {
    fn is_empty(&self) -> bool {
        self.direction.is_none()
            && self.min_amount.is_none()
            && self.max_amount.is_none()
            && self.risk_level.is_none()
    }

    /// Returns 1 for credits, -1 for debits, 0 for both.
    fn sign(&self) -> i16 {
        match self.direction {
            Some(Direction::Credit) => 1,
            Some(Direction::Debit) => -1,
            None => 0,
        }
    }
}

async fn account_page(
    connection: &mut Connection,
    account_id: &AccountId,
    filter: &TransactionFilter,
) -> Result<Vec<ScannedRow<TransactionRow>>, RepositoryError> {
    let bounds = filter.page.account_bounds(connection, account_id).await?;
    if filter.is_empty() {
        let rows = transactions::table
            .filter(transactions::account_id.eq(account_id.as_str()))
            .filter(transactions::account_seq.ge(bounds.start).and(transactions::account_seq.lt(bounds.end)))
            .order(transactions::account_seq.desc())
            .limit(filter.page.rows_read())
            .select(TransactionRow::as_select())
            .load(connection)
            .await?;
        return Ok(ScannedRow::all_matching(rows));
    }
    let rows = statement(include_str!("account_scan.sql"))
        .bind::<Text, _>(account_id.as_str())
        .bind::<BigInt, _>(bounds.start)
        .bind::<BigInt, _>(bounds.end)
        .bind::<SmallInt, _>(filter.sign())
        .bind::<Nullable<Numeric>, _>(filter.min_amount.as_ref())
        .bind::<Nullable<Numeric>, _>(filter.max_amount.as_ref())
        .bind::<Nullable<Text>, _>(filter.risk_level.map(RiskState::as_str))
        .bind::<BigInt, _>(filter.page.rows_read())
        .load(connection)
        .await?;
    Ok(rows)
}

async fn ledger_page(
    connection: &mut Connection,
    filter: &TransactionFilter,
) -> Result<Vec<ScannedRow<TransactionRow>>, RepositoryError> {
    if filter.is_empty() {
        return unfiltered_ledger_page(connection, &filter.page).await;
    }
    match filter.risk_level {
        Some(level @ (RiskState::Medium | RiskState::High)) => level_page(connection, level, filter).await,
        level => filtered_ledger_page(connection, level, filter).await,
    }
}

async fn unfiltered_ledger_page(
    connection: &mut Connection,
    page: &PageRequest,
) -> Result<Vec<ScannedRow<TransactionRow>>, RepositoryError> {
    let bounds = page.ledger_bounds();
    let rows = transactions::table
        .filter(transactions::id.ge(bounds.start).and(transactions::id.lt(bounds.end)))
        .order(transactions::id.desc())
        .limit(page.rows_read())
        .select(TransactionRow::as_select())
        .load(connection)
        .await?;
    Ok(ScannedRow::all_matching(rows))
}

async fn filtered_ledger_page(
    connection: &mut Connection,
    level: Option<RiskState>,
    filter: &TransactionFilter,
) -> Result<Vec<ScannedRow<TransactionRow>>, RepositoryError> {
    let bounds = filter.page.ledger_bounds();
    let rows = statement(include_str!("ledger_scan.sql"))
        .bind::<SqlUuid, _>(bounds.start)
        .bind::<SqlUuid, _>(bounds.end)
        .bind::<SmallInt, _>(filter.sign())
        .bind::<Nullable<Numeric>, _>(filter.min_amount.as_ref())
        .bind::<Nullable<Numeric>, _>(filter.max_amount.as_ref())
        .bind::<Nullable<Text>, _>(level.map(RiskState::as_str))
        .bind::<BigInt, _>(filter.page.rows_read())
        .load(connection)
        .await?;
    Ok(rows)
}

async fn level_page(
    connection: &mut Connection,
    level: RiskState,
    filter: &TransactionFilter,
) -> Result<Vec<ScannedRow<TransactionRow>>, RepositoryError> {
    let bounds = filter.page.ledger_bounds();
    let rows = statement(include_str!("level_scan.sql"))
        .bind::<Text, _>(level.as_str())
        .bind::<SqlUuid, _>(bounds.start)
        .bind::<SqlUuid, _>(bounds.end)
        .bind::<SmallInt, _>(filter.sign())
        .bind::<Nullable<Numeric>, _>(filter.min_amount.as_ref())
        .bind::<Nullable<Numeric>, _>(filter.max_amount.as_ref())
        .bind::<BigInt, _>(filter.page.rows_read())
        .load(connection)
        .await?;
    Ok(rows)
}
