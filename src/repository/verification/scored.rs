//! Pages of transactions with their assessments, in the order in which they are scored.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::super::{Bind, Connection, RepositoryError, statement};

/// A transaction with its assessment. The fields of the assessment are None while it is pending.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct ScoredRow {
    /// The account.
    #[diesel(sql_type = Text)]
    pub account_id: String,
    /// The currency of the account, if the account exists.
    #[diesel(sql_type = Nullable<Text>)]
    pub currency: Option<String>,
    /// The sequence number in the account.
    #[diesel(sql_type = BigInt)]
    pub account_seq: i64,
    /// The id of the transaction.
    #[diesel(sql_type = SqlUuid)]
    pub transaction_id: Uuid,
    /// Minor units, negative for a debit.
    #[diesel(sql_type = BigInt)]
    pub amount: i64,
    /// Minor units.
    #[diesel(sql_type = BigInt)]
    pub balance_after: i64,
    /// The time of the transaction.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// The reversed transaction.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub reverses: Option<Uuid>,
    /// The counterparty.
    #[diesel(sql_type = Nullable<Text>)]
    pub counterparty: Option<String>,
    /// The description.
    #[diesel(sql_type = Nullable<Text>)]
    pub description: Option<String>,
    /// The metadata as JSON.
    #[diesel(sql_type = Nullable<Text>)]
    pub metadata: Option<String>,
    /// The version of the rule set.
    #[diesel(sql_type = Nullable<Text>)]
    pub ruleset: Option<String>,
    /// The score.
    #[diesel(sql_type = Nullable<SmallInt>)]
    pub risk_score: Option<i16>,
    /// The level.
    #[diesel(sql_type = Nullable<Text>)]
    pub risk_level: Option<String>,
    /// The reasons as JSON.
    #[diesel(sql_type = Nullable<Text>)]
    pub reasons: Option<String>,
    /// The reasons of shadow rules as JSON.
    #[diesel(sql_type = Nullable<Text>)]
    pub shadow_reasons: Option<String>,
    /// The rules that failed, as JSON. None: no rule failed.
    #[diesel(sql_type = Nullable<Text>)]
    pub rule_errors: Option<String>,
}

/// Returns at most `limit` transactions after `account_seq` of `account_id`, in the order of account and number.
pub async fn scored_rows(
    connection: &mut Connection,
    account_id: &str,
    account_seq: i64,
    limit: i64,
) -> Result<Vec<ScoredRow>, RepositoryError> {
    let rows = statement(include_str!("scored/page.sql"))
        .bind::<Text, _>(account_id)
        .bind::<BigInt, _>(account_seq)
        .bind::<BigInt, _>(limit)
        .get_results(connection)
        .await?;
    Ok(rows)
}
