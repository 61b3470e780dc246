//! Reading assessments in pages, newest transaction first.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Bool, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    Bind, Connection, RepositoryError,
    accounts::seq_range,
    statement,
    walk::{Page, Walked, walk_rows_max},
};
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
    /// Rows wanted.
    pub limit: i64,
    /// With an account: only rows before this sequence number.
    pub before_seq: Option<i64>,
    /// Without an account: only rows before this transaction.
    pub before_id: Option<Uuid>,
}

/// A place among the assessments: its number in the account's, the transaction in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssessmentPosition {
    /// In the account's.
    pub account_seq: i64,
    /// In all.
    pub transaction_id: Uuid,
}

#[derive(QueryableByName)]
struct WalkedRow {
    #[diesel(embed)]
    found: AssessmentRow,
    #[diesel(sql_type = Bool)]
    matches: bool,
    #[diesel(sql_type = Bool)]
    is_last: bool,
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
) -> Result<Page<AssessmentRow, AssessmentPosition>, RepositoryError> {
    let rows = match &filter.account_id {
        Some(account_id) => account_page(connection, account_id, filter).await?,
        None => whole_page(connection, filter).await?,
    };
    let walked =
        rows.into_iter().map(|WalkedRow { found, matches, is_last }| Walked { row: found, matches, is_last });
    let limit = usize::try_from(filter.limit).unwrap_or(0);
    Ok(Page::of(walked, limit, |row| AssessmentPosition {
        account_seq: row.account_seq,
        transaction_id: row.transaction_id,
    }))
}

async fn account_page(
    connection: &mut Connection,
    account_id: &AccountId,
    filter: &AssessmentFilter,
) -> Result<Vec<WalkedRow>, RepositoryError> {
    let (from_seq, to_seq) = seq_range(connection, account_id, filter.from, filter.to).await?;
    let rows =
        statement(walk!("account_seq", "r.account_id = ? AND r.account_seq >= ? AND r.account_seq < ?"))
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
) -> Result<Vec<WalkedRow>, RepositoryError> {
    let from_id = filter.from.map_or(Uuid::nil(), transaction_id_floor);
    let to_id = filter.to.map_or(Uuid::max(), transaction_id_floor);
    let before_id = filter.before_id.unwrap_or(Uuid::max()).min(to_id);
    let rows = match filter.level.as_deref() {
        Some(level) if level != "low" => statement(walk!(
            "transaction_id",
            "r.risk_level = ? AND r.risk_level <> 'low' AND r.transaction_id >= ? AND r.transaction_id < ?"
        ))
        .bind::<Nullable<Text>, _>(None::<&str>)
        .bind::<Nullable<Text>, _>(filter.rule.as_deref())
        .bind::<Nullable<Text>, _>(filter.ruleset.as_deref())
        .bind::<Text, _>(level)
        .bind::<SqlUuid, _>(from_id)
        .bind::<SqlUuid, _>(before_id)
        .bind::<BigInt, _>(filter.limit + 1)
        .load(connection)
        .await?,
        level => {
            statement(walk!("transaction_id", "r.transaction_id >= ? AND r.transaction_id < ?"))
                .bind::<Nullable<Text>, _>(level)
                .bind::<Nullable<Text>, _>(filter.rule.as_deref())
                .bind::<Nullable<Text>, _>(filter.ruleset.as_deref())
                .bind::<SqlUuid, _>(from_id)
                .bind::<SqlUuid, _>(before_id)
                .bind::<BigInt, _>(filter.limit + 1)
                .load(connection)
                .await?
        }
    };
    Ok(rows)
}
