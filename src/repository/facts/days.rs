//! The days of the facts, and their ranges of transaction ids.

use chrono::{DateTime, Days, NaiveDate, Utc};
use diesel::{
    QueryDsl, QueryableByName,
    sql_types::{Array, BigInt, Date, Nullable, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::super::{Bind, Connection, RepositoryError, schema::fact_marks, statement};
use crate::domain::transaction_id_floor;

#[derive(QueryableByName)]
struct DayRow {
    #[diesel(sql_type = Date)]
    day: NaiveDate,
}

#[derive(QueryableByName)]
struct Bounds {
    #[diesel(sql_type = Nullable<Date>)]
    first: Option<NaiveDate>,
    #[diesel(sql_type = Nullable<Date>)]
    last: Option<NaiveDate>,
}

/// Returns the first id of the day and the first id of the day after it.
pub fn id_range(day: NaiveDate) -> (Uuid, Uuid) {
    let midnight = |day: NaiveDate| DateTime::<Utc>::from_naive_utc_and_offset(day.into(), Utc);
    let next = day.checked_add_days(Days::new(1)).unwrap_or(day);
    (transaction_id_floor(midnight(day)), transaction_id_floor(midnight(next)))
}

/// Returns the days that have marks, oldest first.
pub async fn marked_days(connection: &mut Connection) -> Result<Vec<NaiveDate>, RepositoryError> {
    let days =
        fact_marks::table.select(fact_marks::day).distinct().order(fact_marks::day).load(connection).await?;
    Ok(days)
}

/// The marks, transactions and facts of a day.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName, serde::Serialize)]
pub struct DayPreview {
    /// The UTC date.
    #[diesel(sql_type = Date)]
    pub day: NaiveDate,
    /// The number of its marks.
    #[diesel(sql_type = BigInt)]
    pub marks: i64,
    /// The number of its transactions in the ledger.
    #[diesel(sql_type = BigInt)]
    pub transactions: i64,
    /// The number of its rows in `fact_transactions`.
    #[diesel(sql_type = BigInt)]
    pub facts: i64,
}

/// Counts the marks, transactions and facts of each of these days, in one statement.
pub async fn day_previews(
    connection: &mut Connection,
    days: &[NaiveDate],
) -> Result<Vec<DayPreview>, RepositoryError> {
    let (begins, ends): (Vec<Uuid>, Vec<Uuid>) = days.iter().map(|day| id_range(*day)).unzip();
    let previews = statement(include_str!("day_previews.sql"))
        .bind::<Array<Date>, _>(days)
        .bind::<Array<SqlUuid>, _>(begins)
        .bind::<Array<SqlUuid>, _>(ends)
        .load(connection)
        .await?;
    Ok(previews)
}

/// Returns the days from `from` to `to`, both included, that have transactions, facts or marks, oldest first. None
/// means no bound.
pub async fn days_between(
    connection: &mut Connection,
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
) -> Result<Vec<NaiveDate>, RepositoryError> {
    let bounds: Bounds = statement(include_str!("bounds.sql")).get_result(connection).await?;
    let (Some(first), Some(last)) = (bounds.first, bounds.last) else { return Ok(Vec::new()) };
    let first = from.map_or(first, |from| from.max(first));
    let last = to.map_or(last, |to| to.min(last));
    let candidates: Vec<NaiveDate> = first.iter_days().take_while(|day| *day <= last).collect();
    let (begins, ends): (Vec<Uuid>, Vec<Uuid>) = candidates.iter().map(|day| id_range(*day)).unzip();
    let days: Vec<DayRow> = statement(include_str!("days_with_rows.sql"))
        .bind::<Array<Date>, _>(candidates)
        .bind::<Array<SqlUuid>, _>(begins)
        .bind::<Array<SqlUuid>, _>(ends)
        .load(connection)
        .await?;
    Ok(days.into_iter().map(|row| row.day).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_a_range_of_ids_that_meets_the_next() {
        let day = NaiveDate::from_ymd_opt(1993, 12, 31).expect("a date");
        let next = NaiveDate::from_ymd_opt(1994, 1, 1).expect("a date");
        assert!(id_range(day).0 < id_range(day).1);
        assert_eq!(id_range(day).1, id_range(next).0);
    }
}
