//! Reads and deletes the marks of a day.

use chrono::{DateTime, NaiveDate, Utc};
use diesel::{BoolExpressionMethods, ExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    super::{Connection, RepositoryError, schema::fact_marks},
    days::id_range,
};
use crate::domain::{IdRange, union_of};

/// The place of a mark in the order of the marks of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MarkKey {
    marked_at: DateTime<Utc>,
    id: Uuid,
}

type MarkRow = (DateTime<Utc>, Uuid, Option<Uuid>, Option<Uuid>);

/// Marks that follow each other in the order of their day.
pub(super) struct MarkChunk {
    /// The union of their ranges. None: a mark names no range, so it stands for the whole day.
    pub ranges: Option<Vec<IdRange>>,
    /// Whether marks may follow.
    pub is_full: bool,
    keys: Vec<MarkKey>,
}

impl MarkChunk {
    /// Reads at most `count_max` marks of a day, from after `after`.
    pub(super) async fn read(
        connection: &mut Connection,
        day: NaiveDate,
        after: Option<MarkKey>,
        count_max: u16,
    ) -> Result<Self, RepositoryError> {
        let after = after.unwrap_or(MarkKey { marked_at: DateTime::<Utc>::UNIX_EPOCH, id: Uuid::nil() });
        let rows: Vec<MarkRow> = fact_marks::table
            .filter(fact_marks::day.eq(day))
            .filter(fact_marks::marked_at.ge(after.marked_at))
            .filter(fact_marks::marked_at.gt(after.marked_at).or(fact_marks::id.gt(after.id)))
            .order((fact_marks::marked_at, fact_marks::id))
            .limit(count_max.into())
            .select((fact_marks::marked_at, fact_marks::id, fact_marks::begin_id, fact_marks::end_id))
            .load(connection)
            .await?;
        // An id outside of the day would get a fact under a wrong date.
        let (first, last) = id_range(day);
        let range = |(_, _, begin, end): &MarkRow| {
            Some(IdRange { begin: (*begin)?.max(first), end: (*end)?.min(last) })
        };
        Ok(Self {
            ranges: rows.iter().map(range).collect::<Option<Vec<IdRange>>>().map(union_of),
            is_full: rows.len() >= usize::from(count_max),
            keys: rows.into_iter().map(|(marked_at, id, ..)| MarkKey { marked_at, id }).collect(),
        })
    }

    /// Returns the key of the last mark.
    pub(super) fn last_key(&self) -> Option<MarkKey> {
        self.keys.last().copied()
    }

    /// Deletes exactly the marks that were read.
    pub(super) async fn delete(
        &self,
        connection: &mut Connection,
        day: NaiveDate,
    ) -> Result<(), RepositoryError> {
        let (Some(first), Some(last)) = (self.keys.iter().min(), self.keys.iter().max()) else {
            return Ok(());
        };
        let ids: Vec<Uuid> = self.keys.iter().map(|key| key.id).collect();
        let marks = fact_marks::table
            .filter(fact_marks::day.eq(day))
            .filter(fact_marks::marked_at.between(first.marked_at, last.marked_at))
            .filter(fact_marks::id.eq_any(ids));
        diesel::delete(marks).execute(connection).await?;
        Ok(())
    }
}

/// Deletes all marks of a day that the snapshot sees.
pub(super) async fn delete_all(connection: &mut Connection, day: NaiveDate) -> Result<(), RepositoryError> {
    diesel::delete(fact_marks::table.filter(fact_marks::day.eq(day))).execute(connection).await?;
    Ok(())
}
