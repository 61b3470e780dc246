//! The risk level as a column: the text of the level.

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    pg::{Pg, PgValue},
    sql_types::Text,
};

use crate::domain::RiskLevel;

/// A risk level that is read from a text column.
#[derive(Debug, FromSqlRow)]
pub struct LevelColumn(RiskLevel);

impl FromSql<Text, Pg> for LevelColumn {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let text = <String as FromSql<Text, Pg>>::from_sql(value)?;
        RiskLevel::parse(&text).map(Self).ok_or_else(|| format!("{text:?} is not a risk level").into())
    }
}

impl From<LevelColumn> for RiskLevel {
    fn from(column: LevelColumn) -> Self {
        column.0
    }
}
