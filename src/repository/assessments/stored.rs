//! A stored assessment, and its look-up: one, or many in one query.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    pg::Pg,
    prelude::*,
    sql_types::{Array, BigInt, Nullable, Text},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::level::LevelColumn;
use crate::{
    domain::{AccountId, RiskLevel},
    repository::{Bind, Connection, RepositoryError, schema::risk_assessments, statement},
};

/// An assessment as the database holds it.
#[derive(Queryable, Selectable, QueryableByName, Debug, Clone)]
#[diesel(table_name = risk_assessments, check_for_backend(Pg))]
pub struct StoredAssessment {
    /// The assessed transaction.
    pub transaction_id: Uuid,
    /// The account of the transaction.
    pub account_id: String,
    /// The transaction's number in the account.
    pub account_seq: i64,
    /// The score, 0 to 100.
    pub risk_score: i16,
    /// The level of the score.
    #[diesel(deserialize_as = LevelColumn)]
    pub risk_level: RiskLevel,
    /// JSON array of `{rule, score, reason}`, one for each live rule that fired.
    #[diesel(sql_type = Text, select_expression = risk_assessments::reasons.cast::<Text>())]
    pub reasons: String,
    /// JSON array of the same form, for rules in shadow mode.
    #[diesel(sql_type = Text, select_expression = risk_assessments::shadow_reasons.cast::<Text>())]
    pub shadow_reasons: String,
    /// JSON array of `{rule, mode, error}`, one for each rule that failed. None: no rule failed.
    #[diesel(sql_type = Nullable<Text>, select_expression = risk_assessments::rule_errors.cast::<Nullable<Text>>())]
    pub rule_errors: Option<String>,
    /// The version of the rule set.
    pub ruleset: String,
    /// When the transaction was scored.
    pub assessed_at: DateTime<Utc>,
}

/// Returns the assessment of a transaction, or None while it is pending.
pub async fn find(
    connection: &mut Connection,
    account_id: &AccountId,
    account_seq: i64,
) -> Result<Option<StoredAssessment>, RepositoryError> {
    let found = risk_assessments::table
        .find((account_id.as_str(), account_seq))
        .select(StoredAssessment::as_select())
        .get_result(connection)
        .await
        .optional()?;
    Ok(found)
}

#[derive(QueryableByName)]
struct FoundRow {
    #[diesel(sql_type = BigInt)]
    ordinal: i64,
    #[diesel(embed)]
    found: StoredAssessment,
}

/// Returns the assessments of the transactions with these accounts and numbers, in their order, with None for a pending
/// one.
pub async fn find_all(
    connection: &mut Connection,
    account_ids: &[&str],
    account_seqs: &[i64],
) -> Result<Vec<Option<StoredAssessment>>, RepositoryError> {
    let rows = statement(include_str!("find_all.sql"))
        .bind::<Array<Text>, _>(account_ids)
        .bind::<Array<BigInt>, _>(account_seqs)
        .load::<FoundRow>(connection)
        .await?;
    let mut all: Vec<Option<StoredAssessment>> = account_ids.iter().map(|_| None).collect();
    for FoundRow { ordinal, found } in rows {
        let slot = usize::try_from(ordinal - 1).ok().and_then(|index| all.get_mut(index));
        slot.map(|slot| slot.replace(found));
    }
    Ok(all)
}
