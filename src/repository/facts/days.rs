//! Days and their ranges of ids.

use chrono::{DateTime, Days, NaiveDate, Utc};
use diesel::{
    QueryableByName,
    sql_types::{Array, Date, Nullable, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::super::{Bind, Connection, RepositoryError, statement};
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

/// First id of the day and first id of the day after it.
pub fn id_range(day: NaiveDate) -> (Uuid, Uuid) {
    let midnight = |day: NaiveDate| DateTime::<Utc>::from_naive_utc_and_offset(day.into(), Utc);
    let next = day.checked_add_days(Days::new(1)).unwrap_or(day);
    (transaction_id_floor(midnight(day)), transaction_id_floor(midnight(next)))
}

/// Days that were touched since they were last rebuilt, oldest first.
pub async fn marked_days(connection: &mut Connection) -> Result<Vec<NaiveDate>, RepositoryError> {
    let days: Vec<DayRow> =
        statement("SELECT DISTINCT day FROM fact_marks ORDER BY day").load(connection).await?;
    Ok(days.into_iter().map(|row| row.day).collect())
}

/// Days from `from` to `to`, both included, that have transactions, facts or marks, oldest first. None: no bound.
pub async fn days_between(
    connection: &mut Connection,
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
) -> Result<Vec<NaiveDate>, RepositoryError> {
    let bounds = bounds(connection).await?;
    let (Some(first), Some(last)) = (bounds.first, bounds.last) else { return Ok(Vec::new()) };
    let first = from.map_or(first, |from| from.max(first));
    let last = to.map_or(last, |to| to.min(last));
    let candidates: Vec<NaiveDate> = first.iter_days().take_while(|day| *day <= last).collect();
    let (begins, ends): (Vec<Uuid>, Vec<Uuid>) = candidates.iter().map(|day| id_range(*day)).unzip();
    let days: Vec<DayRow> = statement(
        "SELECT c.day FROM unnest(?, ?, ?) AS c (day, begin_id, end_id)
         WHERE EXISTS (SELECT FROM transactions t WHERE t.id >= c.begin_id AND t.id < c.end_id)
            OR EXISTS (SELECT FROM fact_transactions f WHERE f.business_date = c.day)
            OR EXISTS (SELECT FROM fact_account_day f WHERE f.business_date = c.day)
            OR EXISTS (SELECT FROM fact_marks m WHERE m.day = c.day)
         ORDER BY c.day",
    )
    .bind::<Array<Date>, _>(candidates)
    .bind::<Array<SqlUuid>, _>(begins)
    .bind::<Array<SqlUuid>, _>(ends)
    .load(connection)
    .await?;
    Ok(days.into_iter().map(|row| row.day).collect())
}

/// The oldest and the newest day that anything is known of. Each part is the end of an index.
async fn bounds(connection: &mut Connection) -> Result<Bounds, RepositoryError> {
    let bounds = statement(
        "SELECT min(day) AS first, max(day) AS last FROM (
           (SELECT (created_at AT TIME ZONE 'UTC')::date AS day FROM transactions ORDER BY id LIMIT 1)
           UNION ALL
           (SELECT (created_at AT TIME ZONE 'UTC')::date FROM transactions ORDER BY id DESC LIMIT 1)
           UNION ALL (SELECT min(business_date) FROM fact_transactions)
           UNION ALL (SELECT max(business_date) FROM fact_transactions)
           UNION ALL (SELECT min(business_date) FROM fact_account_day)
           UNION ALL (SELECT max(business_date) FROM fact_account_day)
           UNION ALL (SELECT min(day) FROM fact_marks)
           UNION ALL (SELECT max(day) FROM fact_marks)) AS ends",
    )
    .get_result(connection)
    .await?;
    Ok(bounds)
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
