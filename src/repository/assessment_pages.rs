//! Reading assessments in pages, newest transaction first.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{Bind, Connection, RepositoryError, accounts::seq_range, statement};
use crate::domain::{AccountId, transaction_id_floor};

/// An assessment as it is kept.
#[derive(QueryableByName, Debug, Clone)]
pub struct AssessmentRow {
    /// The assessed transaction.
    #[diesel(sql_type = SqlUuid)]
    pub transaction_id: Uuid,
    /// Its account.
    #[diesel(sql_type = Text)]
    pub account_id: String,
    /// Its number in the account.
    #[diesel(sql_type = BigInt)]
    pub account_seq: i64,
    /// 0–100.
    #[diesel(sql_type = SmallInt)]
    pub risk_score: i16,
    /// `low`, `medium` or `high`.
    #[diesel(sql_type = Text)]
    pub risk_level: String,
    /// JSON array of `{rule, score, reason}`.
    #[diesel(sql_type = Text)]
    pub reasons: String,
    /// The same, of rules in shadow mode.
    #[diesel(sql_type = Text)]
    pub shadow_reasons: String,
    /// Content hash of the rules.
    #[diesel(sql_type = Text)]
    pub ruleset: String,
    /// When it was scored.
    #[diesel(sql_type = Timestamptz)]
    pub assessed_at: DateTime<Utc>,
}

/// What a page of assessments is asked for.
#[derive(Debug, Clone)]
pub struct AssessmentFilter {
    /// Of one account only.
    pub account_id: Option<AccountId>,
    /// Of transactions created at or after.
    pub from: Option<DateTime<Utc>>,
    /// Of transactions created before.
    pub to: Option<DateTime<Utc>>,
    /// `low`, `medium` or `high`.
    pub level: Option<String>,
    /// A live rule that fired.
    pub rule: Option<String>,
    /// Content hash of the rules.
    pub ruleset: Option<String>,
    /// Rows wanted; one more is read, to know whether there is another page.
    pub limit: i64,
    /// With an account: only rows before this sequence number.
    pub before_seq: Option<i64>,
    /// Without an account: only rows before this transaction.
    pub before_id: Option<Uuid>,
}

/// What both pages select, and the filters that no index serves: each is applied only if it is asked for.
macro_rules! page {
    ($bounds:literal, $order:literal) => {
        concat!(
            "SELECT r.transaction_id, r.account_id, r.account_seq, r.risk_score, r.risk_level,
                    r.reasons::text AS reasons, r.shadow_reasons::text AS shadow_reasons, r.ruleset, r.assessed_at
             FROM risk_assessments r, (SELECT ?::text, ?::text, ?::text) AS f (level, rule, ruleset)
             WHERE ",
            $bounds,
            " AND (f.level IS NULL OR r.risk_level = f.level)
              AND (f.ruleset IS NULL OR r.ruleset = f.ruleset)
              AND (f.rule IS NULL
                   OR EXISTS (SELECT FROM json_array_elements(r.reasons) AS reason WHERE reason ->> 'rule' = f.rule))
             ORDER BY ",
            $order,
            " DESC LIMIT ?"
        )
    };
}

/// A page: of one account by its sequence numbers, as its history is; of all by the transaction's id, which sorts by
/// time. Either way an index gives the order, so a page costs the same however many rows there are.
pub async fn page(
    connection: &mut Connection,
    filter: &AssessmentFilter,
) -> Result<Vec<AssessmentRow>, RepositoryError> {
    match &filter.account_id {
        Some(account_id) => account_page(connection, account_id, filter).await,
        None => whole_page(connection, filter).await,
    }
}

async fn account_page(
    connection: &mut Connection,
    account_id: &AccountId,
    filter: &AssessmentFilter,
) -> Result<Vec<AssessmentRow>, RepositoryError> {
    let (from_seq, to_seq) = seq_range(connection, account_id, filter.from, filter.to).await?;
    let rows =
        statement(page!("r.account_id = ? AND r.account_seq >= ? AND r.account_seq < ?", "r.account_seq"))
            .bind::<Nullable<Text>, _>(filter.level.as_deref())
            .bind::<Nullable<Text>, _>(filter.rule.as_deref())
            .bind::<Nullable<Text>, _>(filter.ruleset.as_deref())
            .bind::<Text, _>(account_id.as_str())
            .bind::<BigInt, _>(from_seq)
            .bind::<BigInt, _>(filter.before_seq.unwrap_or(i64::MAX).min(to_seq))
            .bind::<BigInt, _>(filter.limit + 1)
            .load(connection)
            .await?;
    Ok(rows)
}

async fn whole_page(
    connection: &mut Connection,
    filter: &AssessmentFilter,
) -> Result<Vec<AssessmentRow>, RepositoryError> {
    let to_id = filter.to.map_or(Uuid::max(), transaction_id_floor);
    let rows = statement(page!("r.transaction_id >= ? AND r.transaction_id < ?", "r.transaction_id"))
        .bind::<Nullable<Text>, _>(filter.level.as_deref())
        .bind::<Nullable<Text>, _>(filter.rule.as_deref())
        .bind::<Nullable<Text>, _>(filter.ruleset.as_deref())
        .bind::<SqlUuid, _>(filter.from.map_or(Uuid::nil(), transaction_id_floor))
        .bind::<SqlUuid, _>(filter.before_id.unwrap_or(Uuid::max()).min(to_id))
        .bind::<BigInt, _>(filter.limit + 1)
        .load(connection)
        .await?;
    Ok(rows)
}
