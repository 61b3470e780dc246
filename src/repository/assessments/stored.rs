//! A stored assessment, and its look-up.

use chrono::{DateTime, Utc};
use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{BigInt, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::{
    domain::AccountId,
    repository::{Bind, Connection, RepositoryError, statement},
};

/// An assessment as it is kept.
#[derive(QueryableByName, Debug, Clone)]
pub struct StoredAssessment {
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

/// The assessment of a row, or None while it is pending.
pub async fn find(
    connection: &mut Connection,
    account_id: &AccountId,
    account_seq: i64,
) -> Result<Option<StoredAssessment>, RepositoryError> {
    let found = statement(
        "SELECT transaction_id, account_id, account_seq, risk_score, risk_level, reasons::text AS reasons,
                shadow_reasons::text AS shadow_reasons, ruleset, assessed_at
         FROM risk_assessments WHERE account_id = ? AND account_seq = ?",
    )
    .bind::<Text, _>(account_id.as_str())
    .bind::<BigInt, _>(account_seq)
    .get_result(connection)
    .await
    .optional()?;
    Ok(found)
}
