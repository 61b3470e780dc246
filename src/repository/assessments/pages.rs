//! Pages of assessments, newest transaction first. The page of an account is sorted by `account_seq`, the page of the
//! whole ledger by the transaction's id, which contains the time.
//!
//! Every page is read along an index. The levels `medium` and `high` have an index of their own; all other pages use
//! the index of their sort key. A filter that no index serves is applied row by row to a bounded number of rows (see
//! [`paging`](crate::repository::paging)), so a page costs the same however many rows exist.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Nullable, Text, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;

use super::stored::StoredAssessment;
use crate::{
    domain::{AccountId, RiskLevel},
    repository::{
        Bind, Connection, RepositoryError,
        paging::{Page, PageRequest, ScannedRow},
        schema::risk_assessments,
        statement,
    },
};

/// Which assessments a page may hold.
#[derive(Debug, Clone)]
pub struct AssessmentFilter {
    /// The account, the time range and the size of the page.
    pub page: PageRequest,
    /// Only assessments with this level.
    pub level: Option<RiskLevel>,
    /// A live rule that fired.
    pub rule: Option<String>,
    /// The version of the rule set.
    pub ruleset: Option<String>,
}

/// Returns a page of assessments.
pub async fn page(
    connection: &mut Connection,
    filter: &AssessmentFilter,
) -> Result<Page<StoredAssessment>, RepositoryError> {
    let scanned = match &filter.page.account_id {
        Some(account_id) => account_page(connection, account_id, filter).await?,
        None => ledger_page(connection, filter).await?,
    };
    Ok(Page::of(scanned, &filter.page, |row| (row.account_seq, row.transaction_id)))
}

impl AssessmentFilter {
    fn is_empty(&self) -> bool {
        self.level.is_none() && self.rule.is_none() && self.ruleset.is_none()
    }
}

async fn account_page(
    connection: &mut Connection,
    account_id: &AccountId,
    filter: &AssessmentFilter,
) -> Result<Vec<ScannedRow<StoredAssessment>>, RepositoryError> {
    let bounds = filter.page.account_bounds(connection, account_id).await?;
    if filter.is_empty() {
        let in_bounds =
            risk_assessments::account_seq.ge(bounds.start).and(risk_assessments::account_seq.lt(bounds.end));
        let rows = risk_assessments::table
            .filter(risk_assessments::account_id.eq(account_id.as_str()))
            .filter(in_bounds)
            .order(risk_assessments::account_seq.desc())
            .limit(filter.page.rows_read())
            .select(StoredAssessment::as_select())
            .load(connection)
            .await?;
        return Ok(ScannedRow::all_matching(rows));
    }
    let rows = statement(include_str!("account_scan.sql"))
        .bind::<Text, _>(account_id.as_str())
        .bind::<BigInt, _>(bounds.start)
        .bind::<BigInt, _>(bounds.end)
        .bind::<Nullable<Text>, _>(filter.rule.as_deref())
        .bind::<Nullable<Text>, _>(filter.ruleset.as_deref())
        .bind::<Nullable<Text>, _>(filter.level.map(RiskLevel::as_str))
        .bind::<BigInt, _>(filter.page.rows_read())
        .load(connection)
        .await?;
    Ok(rows)
}

async fn ledger_page(
    connection: &mut Connection,
    filter: &AssessmentFilter,
) -> Result<Vec<ScannedRow<StoredAssessment>>, RepositoryError> {
    if filter.is_empty() {
        return unfiltered_ledger_page(connection, &filter.page).await;
    }
    match filter.level {
        Some(level @ (RiskLevel::Medium | RiskLevel::High)) => level_page(connection, level, filter).await,
        level => filtered_ledger_page(connection, level, filter).await,
    }
}

async fn unfiltered_ledger_page(
    connection: &mut Connection,
    page: &PageRequest,
) -> Result<Vec<ScannedRow<StoredAssessment>>, RepositoryError> {
    let bounds = page.ledger_bounds();
    let in_bounds = risk_assessments::transaction_id
        .ge(bounds.start)
        .and(risk_assessments::transaction_id.lt(bounds.end));
    let rows = risk_assessments::table
        .filter(in_bounds)
        .order(risk_assessments::transaction_id.desc())
        .limit(page.rows_read())
        .select(StoredAssessment::as_select())
        .load(connection)
        .await?;
    Ok(ScannedRow::all_matching(rows))
}

async fn filtered_ledger_page(
    connection: &mut Connection,
    level: Option<RiskLevel>,
    filter: &AssessmentFilter,
) -> Result<Vec<ScannedRow<StoredAssessment>>, RepositoryError> {
    let bounds = filter.page.ledger_bounds();
    let rows = statement(include_str!("ledger_scan.sql"))
        .bind::<SqlUuid, _>(bounds.start)
        .bind::<SqlUuid, _>(bounds.end)
        .bind::<Nullable<Text>, _>(filter.rule.as_deref())
        .bind::<Nullable<Text>, _>(filter.ruleset.as_deref())
        .bind::<Nullable<Text>, _>(level.map(RiskLevel::as_str))
        .bind::<BigInt, _>(filter.page.rows_read())
        .load(connection)
        .await?;
    Ok(rows)
}

async fn level_page(
    connection: &mut Connection,
    level: RiskLevel,
    filter: &AssessmentFilter,
) -> Result<Vec<ScannedRow<StoredAssessment>>, RepositoryError> {
    let bounds = filter.page.ledger_bounds();
    let rows = statement(include_str!("level_scan.sql"))
        .bind::<Text, _>(level.as_str())
        .bind::<SqlUuid, _>(bounds.start)
        .bind::<SqlUuid, _>(bounds.end)
        .bind::<Nullable<Text>, _>(filter.rule.as_deref())
        .bind::<Nullable<Text>, _>(filter.ruleset.as_deref())
        .bind::<BigInt, _>(filter.page.rows_read())
        .load(connection)
        .await?;
    Ok(rows)
}
