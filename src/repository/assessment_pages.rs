//! Reading assessments in pages, newest transaction first.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{Bind, Connection, RepositoryError, statement};
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
    /// Only before this transaction.
    pub before_id: Option<Uuid>,
}

/// A page. Without an account the index on the transaction's id gives the order; with one, its rows are few enough
/// to sort, or the index is walked and filtered, as PostgreSQL finds cheaper.
pub async fn page(
    connection: &mut Connection,
    filter: &AssessmentFilter,
) -> Result<Vec<AssessmentRow>, RepositoryError> {
    let upper =
        filter.before_id.unwrap_or(Uuid::max()).min(filter.to.map_or(Uuid::max(), transaction_id_floor));
    let rows = statement(
        "SELECT r.transaction_id, r.account_id, r.account_seq, r.risk_score, r.risk_level, r.reasons::text AS reasons,
                r.shadow_reasons::text AS shadow_reasons, r.ruleset, r.assessed_at
         FROM risk_assessments r,
              (SELECT ?::text, ?::text, ?::text, ?::text) AS f (account_id, level, rule, ruleset)
         WHERE r.transaction_id >= ? AND r.transaction_id < ?
           AND (f.account_id IS NULL OR r.account_id = f.account_id)
           AND (f.level IS NULL OR r.risk_level = f.level)
           AND (f.ruleset IS NULL OR r.ruleset = f.ruleset)
           AND (f.rule IS NULL
                OR EXISTS (SELECT FROM json_array_elements(r.reasons) AS reason WHERE reason ->> 'rule' = f.rule))
         ORDER BY r.transaction_id DESC LIMIT ?",
    )
    .bind::<Nullable<Text>, _>(filter.account_id.as_ref().map(AccountId::as_str))
    .bind::<Nullable<Text>, _>(filter.level.as_deref())
    .bind::<Nullable<Text>, _>(filter.rule.as_deref())
    .bind::<Nullable<Text>, _>(filter.ruleset.as_deref())
    .bind::<SqlUuid, _>(filter.from.map_or(Uuid::nil(), transaction_id_floor))
    .bind::<SqlUuid, _>(upper)
    .bind::<BigInt, _>(filter.limit + 1)
    .load(connection)
    .await?;
    Ok(rows)
}
