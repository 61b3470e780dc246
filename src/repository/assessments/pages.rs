//! Reading assessments in pages, newest transaction first.

use diesel::sql_types::{Nullable, Text};

use super::stored::StoredAssessment;
use crate::{
    domain::{AccountId, RiskLevel},
    repository::{
        Bind, Connection, RepositoryError,
        paging::{Page, PageRequest, ScannedRow, Unbounded, walk_rows_max},
        statement,
    },
};

/// What a page of assessments is asked for.
#[derive(Debug, Clone)]
pub struct AssessmentFilter {
    /// Of these rows.
    pub page: PageRequest,
    /// Only assessments with this level.
    pub level: Option<RiskLevel>,
    /// A live rule that fired.
    pub rule: Option<String>,
    /// Content hash of the rules.
    pub ruleset: Option<String>,
}

/// A walk within some bounds, in the order of `place`, with the filters that no index serves: each is applied only if it
/// is asked for. Three binds before those of the bounds: level, rule and ruleset or null. The last is the number of rows.
macro_rules! walk {
    ($place:literal, $bounds:literal) => {
        concat!(
            "SELECT r.transaction_id, r.account_id, r.account_seq, r.risk_score, r.risk_level,
                    r.reasons::text AS reasons, r.shadow_reasons::text AS shadow_reasons, r.ruleset, r.assessed_at,
                    r.matches, r.is_last
             FROM (
               SELECT r.*,
                 (SELECT (f.level IS NULL OR r.risk_level = f.level)
                     AND (f.ruleset IS NULL OR r.ruleset = f.ruleset)
                     AND (f.rule IS NULL OR EXISTS (
                            SELECT FROM json_array_elements(r.reasons) AS reason WHERE reason ->> 'rule' = f.rule))
                  FROM (SELECT ?::text, ?::text, ?::text) AS f (level, rule, ruleset)) AS matches
               FROM (
                 SELECT r.*, row_number() OVER (ORDER BY r.",
            $place,
            " DESC) = ",
            walk_rows_max!(),
            " AS is_last FROM risk_assessments r WHERE ",
            $bounds,
            " ORDER BY r.",
            $place,
            " DESC LIMIT ",
            walk_rows_max!(),
            ") AS r) AS r
             WHERE r.matches OR r.is_last ORDER BY r.",
            $place,
            " DESC LIMIT ?"
        )
    };
}

/// A page: of one account by its sequence numbers, as its history is; of all by the transaction's id, which sorts by
/// time. An index gives the order, a level that is not `low` has one of its own, and what is filtered row by row has a
/// bound (see `walk`), so a page costs the same however many rows there are.
pub async fn page(
    connection: &mut Connection,
    filter: &AssessmentFilter,
) -> Result<Page<StoredAssessment>, RepositoryError> {
    let walked = match &filter.page.account_id {
        Some(account_id) => account_page(connection, account_id, filter).await?,
        None => ledger_page(connection, filter).await?,
    };
    Ok(Page::of(walked, &filter.page, |row| (row.account_seq, row.transaction_id)))
}

impl AssessmentFilter {
    /// Gives the statement the first three values of `walk!`.
    fn applied<'a>(&'a self, sql: &'static str, level: Option<&'a str>) -> impl Unbounded + 'a {
        statement(sql)
            .bind::<Nullable<Text>, _>(level)
            .bind::<Nullable<Text>, _>(self.rule.as_deref())
            .bind::<Nullable<Text>, _>(self.ruleset.as_deref())
    }
}

async fn account_page(
    connection: &mut Connection,
    account_id: &AccountId,
    filter: &AssessmentFilter,
) -> Result<Vec<ScannedRow<StoredAssessment>>, RepositoryError> {
    let query = filter.applied(
        walk!("account_seq", "r.account_id = ? AND r.account_seq >= ? AND r.account_seq < ?"),
        filter.level.map(RiskLevel::as_str),
    );
    filter.page.read_account(connection, account_id, query).await
}

async fn ledger_page(
    connection: &mut Connection,
    filter: &AssessmentFilter,
) -> Result<Vec<ScannedRow<StoredAssessment>>, RepositoryError> {
    let page = &filter.page;
    match filter.level.map(RiskLevel::as_str) {
        Some(level) if level != "low" => {
            let sql = walk!(
                "transaction_id",
                "r.risk_level = ? AND r.risk_level <> 'low' AND r.transaction_id >= ? AND r.transaction_id < ?"
            );
            page.read_all(connection, filter.applied(sql, None).bind::<Text, _>(level)).await
        }
        level => {
            let sql = walk!("transaction_id", "r.transaction_id >= ? AND r.transaction_id < ?");
            page.read_all(connection, filter.applied(sql, level)).await
        }
    }
}
