//! The columns of new fact marks, for the statements that write transactions or assessments.

use chrono::NaiveDate;
use uuid::Uuid;

use crate::domain::FactMark;

/// One array for each column, with one element for each mark.
#[derive(Default)]
pub(super) struct MarkColumns {
    pub(super) days: Vec<NaiveDate>,
    pub(super) begin_ids: Vec<Uuid>,
    pub(super) end_ids: Vec<Uuid>,
}

impl MarkColumns {
    pub(super) fn of(marks: &[FactMark]) -> Self {
        let mut columns = Self::default();
        for FactMark { day, ids } in marks {
            columns.days.push(*day);
            columns.begin_ids.push(ids.begin);
            columns.end_ids.push(ids.end);
        }
        columns
    }
}
